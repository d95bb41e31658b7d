"""What holds for every test: the same random numbers on every run, and room for other processes."""

import os

# Before PyTorch is imported, for this process and those it starts: tests run side by side, and
# OpenMP's threads would keep the cores busy with waiting.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import hypothesis
import pytest
import torch

# A first example compiles kernels, so examples have no deadline; fixed examples make a failure
# appear on every machine or on none.
hypothesis.settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _fixed_seed():
    torch.manual_seed(0)
