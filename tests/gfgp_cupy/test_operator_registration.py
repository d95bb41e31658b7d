"""The operators registered with PyTorch pass its own checks on every backend."""

import pytest
import torch

from gfgp_cupy import ops
from tests.support.implementations import each_backend
from tests.support.memory_layouts import arranged
from tests.support.random_numbers import random_numbers

WINDOW = ((3, 3), (2, 2), (1, 1), True)
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
each_layout = pytest.mark.parametrize("layout", ["contiguous", "channels_last"])


def tensors(backend, dtype, layout):
    """Input, λ and a gradient of the output."""
    return tuple(
        arranged(random_numbers(shape, kind, seed), layout).to(backend.device)
        for seed, (shape, kind) in enumerate(
            (((2, 3, 8, 6), dtype), ((2, 3, 1, 1), torch.float32), ((2, 3, 5, 4), dtype))
        )
    )


# opcheck traces each call once more with every size symbolic.


@each_backend
@each_dtype
@each_layout
def test_forward(backend, dtype, layout):
    input, lam, _ = tensors(backend, dtype, layout)
    arguments = (input.requires_grad_(), lam.requires_grad_(), *WINDOW, backend.name)
    torch.library.opcheck(ops.max_ent_pool2d, arguments)


@each_backend
@each_dtype
@each_layout
def test_forward_with_spread(backend, dtype, layout):
    input, lam, _ = tensors(backend, dtype, layout)
    torch.library.opcheck(ops.max_ent_pool2d_with_spread, (input, lam, *WINDOW, backend.name))


@each_backend
@each_dtype
@each_layout
@pytest.mark.parametrize("needed", [(True, True), (True, False), (False, True)], ids=str)
def test_backward(backend, dtype, layout, needed):
    input, lam, grad_output = tensors(backend, dtype, layout)
    arguments = (grad_output, input, lam, *WINDOW, backend.name, needed)
    torch.library.opcheck(ops.max_ent_pool2d_backward, arguments)


@each_backend
def test_backward_that_adds_a_gradient_of_the_mean(backend):
    input, lam, grad_output = tensors(backend, torch.float32, "contiguous")
    arguments = (grad_output, input, lam, *WINDOW, backend.name, (True, False), lam)
    torch.library.opcheck(ops.max_ent_pool2d_backward, arguments)


@each_backend
@each_dtype
@each_layout
def test_lam_backward(backend, dtype, layout):
    _, lam, grad_output = tensors(backend, dtype, layout)
    arguments = (grad_output, grad_output.abs(), lam, backend.name)
    torch.library.opcheck(ops.max_ent_pool2d_lam_backward, arguments)


@each_backend
def test_operator_differentiates_like_the_function(backend):
    input, lam, grad_output = tensors(backend, torch.float32, "contiguous")
    output = ops.max_ent_pool2d(input.requires_grad_(), lam.requires_grad_(), *WINDOW, backend.name)
    gradients = torch.autograd.grad(output, (input, lam), grad_output)
    expected = ops.max_ent_pool2d_backward(
        grad_output, input.detach(), lam.detach(), *WINDOW, backend.name, (True, True)
    )
    assert all(map(torch.equal, gradients, expected))
