"""Threads that share a window wait for each other in each call for it, beside those of others."""

import math
from pathlib import Path

import pytest
import torch

from benchmarks.cuda_on_cpu import run_launch
from gfgp_cupy.kernels.formula import MATHEMATICS, formula_defines
from gfgp_cupy.kernels.launch import Launch, source
from tests.support.cxx import needs_cxx
from tests.support.kernel_cases import window_functions

CALLS = Path(__file__).parent / "calls_of_windows.cu"


@needs_cxx
@pytest.mark.parametrize("function", window_functions(), ids=lambda function: function.name)
def test_every_window_is_called_for_as_often_whatever_its_numbers(function):
    parameters = (-math.inf, -20.0, -1.0, 0.0, 0.1, 1.0, 20.0, math.nan)
    of_windows = (
        (1.0, 2.0, 3.0, 4.0), (1.0, 1.0, 1.0, 1.0), (1e-3, 1e-3, 1e-3, 9.0), (9.0, 9.0, 9.0, 1e-3),
        (0.0, 0.0, 0.0, 0.0), (1.0, math.inf, 3.0, math.nan), (-5.0, 0.0, 1.0, 3e38),
    )  # fmt: skip
    windows = torch.tensor([window for window in of_windows for _ in parameters])
    theta = torch.tensor(parameters * len(of_windows))
    calls, results = torch.zeros_like(theta), torch.zeros_like(theta)
    run_launch(
        Launch(
            name="calls_of_windows",
            source=source("element.cu", *MATHEMATICS, function.cuda, CALLS),
            defines=("DTYPE_FLOAT32=1", "index_t=int", *formula_defines(function)),
            grid=1,
            block=64,
            args=(windows, theta, calls, results, *windows.shape),
        )
    )
    assert calls.unique().tolist() == [calls[0]] and calls[0] > 0
