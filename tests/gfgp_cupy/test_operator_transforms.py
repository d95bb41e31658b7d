"""Derivatives other than a plain backward pass, each against one computed in another way.

gradcheck and gradgradcheck in reverse mode are in test_functional.py and test_guided_pooling.py.
"""

import functools

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from gfgp_cupy import GFGPMaxEntPool2d, GlobalMaxEntPool3d, MaxEntPool2d, use_backend
from gfgp_cupy.functional import (
    adaptive_max_ent_pool2d,
    guided_max_ent_pool2d,
    max_ent_pool2d,
    max_ent_pool3d,
)
from gfgp_cupy.poolings import gated_pool3d, log_sum_exp_pool2d
from tests.support.implementations import each_backend
from tests.support.random_numbers import random_numbers

WINDOWS = {
    "disjoint": {"kernel_size": 2},
    "overlapping": {"kernel_size": 3, "stride": 2, "padding": 1},
}
each_window = pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)


def doubles(shape, seed, device="cpu"):
    return random_numbers(shape, torch.float64, seed).to(device)


def arguments(backend):
    """Input and λ of each sample and channel."""
    return doubles((2, 2, 5, 4), 0, backend.device), doubles((2, 2, 1, 1), 1, backend.device)


def pool_on(backend, **window):
    def pool(input, lam):
        with use_backend(backend.name):
            return max_ent_pool2d(input, lam, **window)

    return pool


def guided_pool_on(backend, **window):
    """As a function of the input and of the head's parameters."""

    def pool(input, weight, bias):
        def head(mean):
            # Not a matrix product, which CUDA repeats in the same bits only if asked to.
            mixed = (weight[:, :, None, None] * mean.unsqueeze(1)).sum(2)
            return (mixed + bias).sigmoid()

        with use_backend(backend.name):
            return guided_max_ent_pool2d(input, head, **window)

    return pool


def guided_arguments(backend):
    input, _ = arguments(backend)
    return input, doubles((2, 2), 2, backend.device), doubles((2, 1, 1), 3, backend.device)


def variables(tensors):
    return tuple(tensor.clone().requires_grad_() for tensor in tensors)


def closest(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------- forward mode


@each_backend
@each_window
def test_forward_mode_agrees_with_finite_differences(backend, window):
    options = {"check_forward_ad": True, "check_backward_ad": False, "check_batched_grad": False}
    assert gradcheck(pool_on(backend, **window), variables(arguments(backend)), **options)
    guided = guided_pool_on(backend, **window)
    assert gradcheck(guided, variables(guided_arguments(backend)), **options)


@each_backend
@each_window
def test_forward_mode_over_a_backward_pass_agrees_with_finite_differences(backend, window):
    options = {
        "check_fwd_over_rev": True,
        "check_rev_over_rev": False,
        "check_undefined_grad": False,
        "fast_mode": True,
    }
    assert gradgradcheck(pool_on(backend, **window), variables(arguments(backend)), **options)
    guided = guided_pool_on(backend, **window)
    assert gradgradcheck(guided, variables(guided_arguments(backend)), **options)


@each_backend
def test_tangent_survives_a_backward_pass_that_is_not_differentiated(backend):
    # Forward over reverse: the tangent of the gradient is a Hessian-vector product.
    pool, (input, lam) = pool_on(backend, kernel_size=2), arguments(backend)
    direction = doubles(input.shape, 5, backend.device)

    def loss(input):
        return pool(input, lam).square().sum()

    _, expected = torch.autograd.functional.hvp(loss, input, direction)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(input.clone().requires_grad_(), direction)
        (gradient,) = torch.autograd.grad(loss(dual), dual)
        closest(forward_ad.unpack_dual(gradient).tangent, expected)


@each_backend
@each_window
def test_tangent_of_the_gradient_of_the_output(backend, window):
    # The graph is older than the tangent; a gradient is linear in that of the output.
    for pool, tensors in (
        (pool_on(backend, **window), variables(arguments(backend))),
        (guided_pool_on(backend, **window), variables(guided_arguments(backend))),
    ):
        output = pool(*tensors)
        primal, tangent = (doubles(output.shape, seed, backend.device) for seed in (8, 9))
        expected = torch.autograd.grad(output, tensors, tangent, retain_graph=True)
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(primal, tangent)
            gradients = torch.autograd.grad(output, tensors, dual)
            closest(tuple(forward_ad.unpack_dual(g).tangent for g in gradients), expected)
        assert not any(gradient.requires_grad for gradient in gradients)


@each_backend
@pytest.mark.parametrize(
    "create",
    [lambda: MaxEntPool2d(2, num_features=2), lambda: GFGPMaxEntPool2d(2, 2)],
    ids=["own lam", "guided"],
)
def test_jvp_of_a_layer_is_its_vjp_transposed(backend, create):
    layer = create().to(backend.device, torch.float64)
    names, parameters = zip(*layer.named_parameters(), strict=True)
    # Statistics are given and thrown away: transforms do not take changes in place.
    buffers = {name: buffer.clone() for name, buffer in layer.named_buffers()}

    def pool(input, *parameters):
        tensors = dict(zip(names, parameters, strict=True))
        tensors |= {name: buffer.clone() for name, buffer in buffers.items()}
        with use_backend(backend.name):
            return torch.func.functional_call(layer, tensors, (input,))

    primals = (arguments(backend)[0], *(parameter.detach() for parameter in parameters))
    tangents = tuple(doubles(p.shape, seed, backend.device) for seed, p in enumerate(primals))
    output, tangent = torch.func.jvp(pool, primals, tangents)
    primals = variables(primals)
    eager = pool(*primals)
    closest(output, eager.detach())
    weights = doubles(output.shape, 20, backend.device)
    gradients = torch.autograd.grad(eager, primals, weights)
    closest(
        (tangent * weights).sum(),
        sum((g * t).sum() for g, t in zip(gradients, tangents, strict=True)),
    )


# ---------------------------------------------------------------- torch.func


@each_backend
@each_window
@pytest.mark.parametrize("transform", [torch.func.jacrev, torch.func.jacfwd])
def test_jacobians(backend, window, transform):
    pool, tensors = pool_on(backend, **window), arguments(backend)
    expected = torch.autograd.functional.jacobian(pool, tensors)
    closest(transform(pool, argnums=(0, 1))(*tensors), expected)


@each_backend
@each_window
def test_jacobian_of_the_guided_pooling(backend, window):
    pool, tensors = guided_pool_on(backend, **window), guided_arguments(backend)
    expected = torch.autograd.functional.jacobian(pool, tensors)
    closest(torch.func.jacrev(pool, argnums=(0, 1, 2))(*tensors), expected)


@each_backend
def test_grad_and_hessian(backend):
    pool, tensors = pool_on(backend, kernel_size=3, stride=2, padding=1), arguments(backend)

    def loss(input, lam):
        return pool(input, lam).square().sum()

    closest(
        torch.func.grad(loss, argnums=(0, 1))(*tensors),
        torch.autograd.grad(loss(*(inputs := variables(tensors))), inputs),
    )
    closest(
        torch.func.hessian(loss, argnums=(0, 1))(*tensors),
        torch.autograd.functional.hessian(loss, tensors),
    )


@each_backend
@pytest.mark.parametrize("in_dims", [(0, 0), (0, None), (None, 0), (1, 2)], ids=str)
def test_vmap(backend, in_dims):
    pool = pool_on(backend, kernel_size=3, stride=2, padding=1)
    tensors = [
        tensor if axis is None else torch.stack([tensor, tensor.sin(), -tensor], axis)
        for tensor, axis in zip(arguments(backend), in_dims, strict=True)
    ]
    expected = torch.stack(
        [
            pool(
                *(
                    tensor if axis is None else tensor.select(axis, index)
                    for tensor, axis in zip(tensors, in_dims, strict=True)
                )
            )
            for index in range(3)
        ]
    )
    closest(torch.func.vmap(pool, in_dims)(*tensors), expected)


OF_EACH_WINDOW = doubles((2, 3, 2, 3), 1)
IN_CHANNELS_LAST = {
    "volumes": ((2, 3, 4, 5, 6), lambda x: max_ent_pool3d(x, 0.7, 3, 2, 1)),
    "whole volumes": ((2, 3, 4, 5, 6), lambda x: GlobalMaxEntPool3d().double()(x)),
    "gated, volumes": ((2, 3, 4, 5, 6), lambda x: gated_pool3d(x, 0.5, 3, 2, 1)),
    "adaptive": ((2, 3, 7, 6), lambda x: adaptive_max_ent_pool2d(x, 0.7, (4, 4))),
    "a parameter of each window": (
        (2, 3, 4, 6),
        lambda x: log_sum_exp_pool2d(x, OF_EACH_WINDOW.to(x.device), 2),
    ),
}


@each_backend
@pytest.mark.parametrize("case", IN_CHANNELS_LAST.values(), ids=IN_CHANNELS_LAST)
def test_vmap_of_channels_last(backend, case):
    """For vmap, PyTorch knows no other memory format than the contiguous one."""
    shape, pool = case
    layout = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    inputs = [
        doubles(shape, seed, backend.device).contiguous(memory_format=layout) for seed in range(3)
    ]
    with use_backend(backend.name):
        batched = torch.func.vmap(pool)(torch.stack(inputs))
        closest(batched, torch.stack([pool(input) for input in inputs]))


@each_backend
def test_gradients_of_each_sample(backend):
    layer = GFGPMaxEntPool2d(2, 2, device=backend.device, dtype=torch.float64).eval()
    parameters = {name: parameter.detach() for name, parameter in layer.named_parameters()}
    input, _ = arguments(backend)

    def loss(parameters, sample):
        with use_backend(backend.name):
            return torch.func.functional_call(layer, parameters, (sample,)).square().sum()

    batched = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, input)
    for index, sample in enumerate(input):
        layer.zero_grad()
        with use_backend(backend.name):
            layer(sample).square().sum().backward()
        for name, parameter in layer.named_parameters():
            closest(batched[name][index], parameter.grad)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@each_backend
@each_window
def test_batch_of_gradients_of_the_output(backend, window):
    # autograd.grad(is_grads_batched=True) runs the eager backward pass under vmap.
    for pool, tensors in (
        (pool_on(backend, **window), variables(arguments(backend))),
        (guided_pool_on(backend, **window), variables(guided_arguments(backend))),
    ):
        output = pool(*tensors)
        weights = doubles((3, *output.shape), 7, backend.device)
        gradients = functools.partial(torch.autograd.grad, output, tensors, retain_graph=True)
        one_by_one = zip(*map(gradients, weights), strict=True)
        closest(
            gradients(weights, is_grads_batched=True),
            tuple(torch.stack(items) for items in one_by_one),
        )


@each_backend
def test_compiled_transform(backend):
    torch._dynamo.reset()
    tensors = arguments(backend)
    gradient = torch.func.grad(
        lambda input, lam: max_ent_pool2d(input, lam, 2).square().sum(), (0, 1)
    )
    compiled = torch.compile(gradient, fullgraph=True, backend="aot_eager")
    with use_backend(backend.name):
        closest(compiled(*tensors), gradient(*tensors))


# ---------------------------------------------------------------- repeatability


@pytest.fixture
def deterministic_algorithms():
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


@each_backend
@each_window
def test_deterministic_algorithms(deterministic_algorithms, backend, window):
    def derivatives(pool, tensors):
        tensors = variables(tensors)
        output = pool(*tensors)
        plain = torch.autograd.grad(output.sum(), tensors, retain_graph=True)
        first = torch.autograd.grad(output.square().sum(), tensors, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), tensors)
        return output, *plain, *first, *second

    for pool, tensors in (
        (pool_on(backend, **window), arguments(backend)),
        (guided_pool_on(backend, **window), guided_arguments(backend)),
    ):
        once, again = (derivatives(pool, tensors) for _ in range(2))
        assert all(map(torch.equal, once, again))


def test_head_is_called_once_by_every_way_to_differentiate():
    # A head may have a state of its own, such as a BatchNorm's statistics.
    calls = []

    class Head(nn.Module):
        def forward(self, mean):
            calls.append(mean)
            return mean.sigmoid()

    def loss(input):
        return guided_max_ent_pool2d(input, Head(), kernel_size=2).sum()

    input = doubles((2, 2, 4, 4), 0)
    for differentiate in (
        lambda: torch.autograd.grad(loss(leaf := input.clone().requires_grad_()), leaf),
        lambda: torch.func.grad(loss)(input),
        lambda: torch.func.jvp(loss, (input,), (input,)),
    ):
        calls.clear()
        differentiate()
        assert len(calls) == 1
