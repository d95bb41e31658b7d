"""One window a plane: every window function that has CUDA functions, traffic and accuracy."""

import pytest
import torch

import gfgp_cupy.poolings  # noqa: F401  registers the window functions
from benchmarks.cuda_on_cpu import run_launch
from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.kernels import passes
from gfgp_cupy.max_ent import MAX_ENT
from gfgp_cupy.ops import OPERATORS
from tests.support.cxx import needs_cxx
from tests.support.implementations import each_place, kernels_on_cpu
from tests.support.random_numbers import random_numbers

SLACK = 1.15
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
FUNCTIONS = [
    of.function for (_, axes), of in OPERATORS.items() if axes == 2 and of.function.cuda is not None
]
LOG_MEAN_EXPS = [of for of in FUNCTIONS if of.name in ("log_sum_exp", "generalized_mean")]

each_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


class Count:
    """Runs launches of ``whole_planes.cu`` and adds up the bytes they move."""

    def __init__(self):
        self.bytes = 0

    def __call__(self, launch):
        assert "whole_planes" in launch.name
        traffic = run_launch(launch)
        self.bytes += traffic.sector_bytes + traffic.store_bytes


def size(tensor):
    return tensor.numel() * tensor.element_size()


@needs_cxx
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@each_layout
@pytest.mark.parametrize(("channels", "plane"), [(64, 7), (32, 14), (16, 56)])
def test_kernels_move_little_more_than_their_tensors(channels, plane, layout, dtype):
    x = random_numbers((1, channels, plane, plane), dtype, 0).contiguous(memory_format=layout)
    lam = random_numbers((1, channels, 1, 1), torch.float32, 1)
    geometry = pool_geometry(plane)
    count = Count()
    output = passes.forward(x, lam, geometry, count)
    assert size(x) + size(output) <= count.bytes <= SLACK * (size(x) + size(output))

    count = Count()
    passes.backward(torch.ones_like(output), x, lam, geometry, (True, True), count)
    least = 2 * size(x) + size(output)
    assert least <= count.bytes <= SLACK * least


@each_place
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_any_function_pools_whole_planes(function, run):
    """Of channels_last, where one warp's threads have different parameters."""
    input = random_numbers((2, 20, 9, 7), torch.float32, 0).contiguous(
        memory_format=torch.channels_last
    )
    parameter = random_numbers((2, 20, 1, 1), torch.float32, 1).exp()
    if function is MAX_ENT or function.name == "gaussian":
        parameter[:, ::3] *= -1
    geometry = pool_geometry((9, 7))
    grad_output = random_numbers((2, 20, 1, 1), torch.float32, 2)
    kernels = kernels_on_cpu(run)
    output, spread = kernels.forward_with_spread(input, parameter, geometry, function=function)
    grad_input, grad_parameter = kernels.backward(
        grad_output, input, parameter, geometry, (True, True), function=function
    )
    fused_grad = kernels.lam_backward(grad_output, spread, parameter, function=function)

    leaves = [tensor.double().requires_grad_() for tensor in (input, parameter)]
    exact = function.compose(*leaves, geometry)
    exact_grads = torch.autograd.grad(exact, leaves, grad_output.double())
    for actual, expected in (
        (output, exact), (grad_input, exact_grads[0]), (grad_parameter, exact_grads[1]),
        (fused_grad, exact_grads[1]),
    ):  # fmt: skip
        torch.testing.assert_close(actual.double(), expected, rtol=5e-6, atol=5e-6)


@each_place
@pytest.mark.parametrize("function", LOG_MEAN_EXPS, ids=lambda function: function.name)
def test_windows_that_wait_for_each_other_take_different_ways(function, run):
    """Near their parameter's limit and far from it, in one block."""
    input = random_numbers((1, 32, 14, 14), torch.float32, 0).abs() + 0.1
    input = input.contiguous(memory_format=torch.channels_last)
    parameter = torch.tensor([1e-3, 3.0, 200.0, 0.3]).repeat(8).view(1, 32, 1, 1)
    output = kernels_on_cpu(run).forward(input, parameter, pool_geometry(14), function=function)
    exact = function.compose(input.double(), parameter.double(), pool_geometry(14))
    torch.testing.assert_close(output.double(), exact, rtol=2e-6, atol=0)


@each_place
@each_layout
def test_50176_elements_are_as_exact_as_few(layout, run):
    """224 x 224, more than a block holds: read again for each sum."""
    input = random_numbers((1, 4, 224, 224), torch.float32, 0) + 100
    input = input.contiguous(memory_format=layout)
    lam = torch.tensor([0.0, 0.5, 5.0, -2.0]).view(1, 4, 1, 1)
    geometry, ones = pool_geometry(224), torch.ones(1, 4, 1, 1)
    kernels = kernels_on_cpu(run)
    output = kernels.forward(input, lam, geometry)
    grad_input, grad_lam = kernels.backward(ones, input, lam, geometry, (True, True))

    leaves = [tensor.double().requires_grad_() for tensor in (input, lam)]
    elements = leaves[0].flatten(2)
    weights = (leaves[1].flatten(2) * elements).softmax(2)
    exact = (weights * elements).sum(2)[..., None, None]
    exact_input, exact_lam = torch.autograd.grad(exact, leaves, ones.double())
    torch.testing.assert_close(output.double(), exact, rtol=2**-23, atol=0)
    torch.testing.assert_close(grad_lam.double(), exact_lam, rtol=2e-6, atol=0)
    # (1 + λ(x − y)) may be near 0: relative to what is summed.
    summed = exact_input.abs() + exact_input.abs().amax((2, 3), keepdim=True)
    assert ((grad_input.double() - exact_input).abs() <= 3e-6 * summed).all()
