"""Overlapping windows in float32, to the roundings of computing relative to their own extremes."""

import pytest
import torch

from benchmarks.cuda_on_cpu import run_launch
from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.memory_format import layout_of
from tests.support import slow_loops
from tests.support.cxx import needs_cxx
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


def check_errors(input, lam, geometry):
    lam = torch.full((1, 1, 1, 1), lam)
    kernels = kernels_on_cpu(run_launch)
    output = kernels.forward(input, lam, geometry)
    grad_output = random_numbers(output.shape, torch.float32, 2).to(memory_format=layout_of(input))
    grad_input, grad_lam = kernels.backward(grad_output, input, lam, geometry, (True, True))
    exact = slow_loops.max_ent_pool2d(input, lam, geometry).value
    exact_input, exact_lam = slow_loops.max_ent_pool2d_gradients(grad_output, input, lam, geometry)

    def error(actual, exact):
        return float((actual.double() - exact).abs().max())

    assert error(output, exact) <= 1.25 * ROUNDOFF * input.abs().max()
    assert error(grad_input, exact_input.value) <= 8 * ROUNDOFF * grad_output.abs().max()
    variances = slow_loops.spread(input, lam, geometry).value ** 2
    all_parts = float((grad_output.abs() * variances).sum())
    assert error(grad_lam, exact_lam.value) <= 8 * ROUNDOFF * all_parts


@pytest.mark.parametrize("lam", [0.0, 0.5, 5.0, 50.0, -0.5, -5.0, -50.0])
@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_errors_do_not_grow_with_lam(layout, kind, lam):
    input = INPUTS[kind](random_numbers((1, 16, 29, 28), torch.float32, 0))
    input = input.contiguous(memory_format=layout)
    check_errors(input, lam, THREE)


@pytest.mark.parametrize("lam", [0.0, 5.0, -50.0])
@pytest.mark.parametrize("kind", ["normal", "far from 0"])
def test_errors_of_large_windows_do_not_grow_with_lam(kind, lam):
    geometry = pool_geometry(7, 2, 3)
    input = INPUTS[kind](random_numbers((1, 16, 13, 16), torch.float32, 0))
    check_errors(input.contiguous(memory_format=torch.channels_last), lam, geometry)
