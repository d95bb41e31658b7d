"""Overlapping windows in float32, to the roundings of computing relative to their own extremes."""

import pytest
import torch

from gfgp_cupy.geometry import pool_geometry
from tests.support import slow_loops
from tests.support.cuda_on_cpu import needs_cxx, run_launch
from tests.support.implementations import kernels_on_cpu
from tests.support.random_numbers import random_numbers

pytestmark = needs_cxx

THREE = pool_geometry(3, 2, 1)
ROUNDOFF = 2.0**-24

INPUTS = {
    "normal": lambda x: x,
    "after a ReLU": torch.relu,
    "far from 0": lambda x: (x + 100).float(),
    "steep": lambda x: x + torch.arange(x.shape[2]).view(-1, 1) / 2,
}


@pytest.mark.parametrize("lam", [0.0, 0.5, 5.0, 50.0, -0.5, -5.0, -50.0])
@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_errors_do_not_grow_with_lam(layout, kind, lam):
    input = INPUTS[kind](random_numbers((1, 16, 29, 28), torch.float32, 0))
    input = input.contiguous(memory_format=layout)
    grad_output = random_numbers((1, 16, 15, 14), torch.float32, 2)
    grad_output = grad_output.contiguous(memory_format=layout)
    lam = torch.full((1, 1, 1, 1), lam)
    kernels = kernels_on_cpu(run_launch)
    output = kernels.forward(input, lam, THREE)
    grad_input, grad_lam = kernels.backward(grad_output, input, lam, THREE, (True, True))
    exact = slow_loops.max_ent_pool2d(input, lam, THREE).value
    exact_input, exact_lam = slow_loops.max_ent_pool2d_gradients(grad_output, input, lam, THREE)

    def error(actual, exact):
        return float((actual.double() - exact).abs().max())

    assert error(output, exact) <= 1.25 * ROUNDOFF * input.abs().max()
    assert error(grad_input, exact_input.value) <= 8 * ROUNDOFF * grad_output.abs().max()
    variances = slow_loops.spread(input, lam, THREE).value ** 2
    all_parts = float((grad_output.abs() * variances).sum())
    assert error(grad_lam, exact_lam.value) <= 8 * ROUNDOFF * all_parts
