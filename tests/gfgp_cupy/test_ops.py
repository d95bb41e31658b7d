"""The registered operators: their schemas and their shape-only versions are true."""

import itertools

import pytest
import torch

from gfgp_cupy import ops  # noqa: F401  registers them
from tests.support.memory_layouts import arranged
from tests.support.random_numbers import random_numbers

GEOMETRY = ((3, 3), (2, 2), (1, 1), True, "torch")
CHECKS = ("test_schema", "test_faketensor")


@pytest.fixture(params=["contiguous", "channels_last"])
def tensors(request):
    input = arranged(random_numbers((2, 3, 8, 6), torch.float32, 0), request.param)
    return input, torch.ones(2, 3, 1, 1), torch.ones(2, 3, 5, 4)


def test_forward(tensors):
    input, lam, _ = tensors
    operator = torch.ops.gfgp_cupy.max_ent_pool2d.default
    torch.library.opcheck(operator, (input, lam, *GEOMETRY), test_utils=CHECKS)


@pytest.mark.parametrize("needed", [*itertools.product((True, False), repeat=2)], ids=str)
def test_backward(tensors, needed):
    input, lam, grad_output = tensors
    operator = torch.ops.gfgp_cupy.max_ent_pool2d_backward.default
    arguments = (grad_output, input, lam, *GEOMETRY, needed)
    torch.library.opcheck(operator, arguments, test_utils=CHECKS)
