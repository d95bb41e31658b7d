"""Gaussian pooling's layers: a weight of its own, and the noise of the guided one's."""

import copy
import math

import pytest
import torch
import torch.utils.checkpoint
from torch import nn

from gfgp_cupy import GaussianPool2d, GFGPGaussianPool2d, functional, poolings, use_backend
from gfgp_cupy.norms import LayerNorm2d
from tests.support.implementations import each_backend
from tests.support.random_numbers import random_numbers

each_noise = pytest.mark.parametrize("stochasticity", ["CN", "HWCN"])


def images(shape=(4, 6, 8, 8), dtype=torch.float64, seed=0):
    return random_numbers(shape, dtype, seed)


def noisy_layer(stochasticity="CN", **options):
    """In training mode; its norm knows no batches, so that one sample does."""
    torch.manual_seed(3)
    options = {"norm_layer": LayerNorm2d, "dtype": torch.float64, **options}
    return GFGPGaussianPool2d(6, 2, stochasticity=stochasticity, **options)


def seeded(function):
    def call(*args):
        torch.manual_seed(5)
        return function(*args)

    return call


# ---------------------------------------------------------------- a weight of its own


@pytest.mark.parametrize("num_features", [None, 6])
@pytest.mark.parametrize("learnable", [True, False])
def test_weight_of_its_own(num_features, learnable):
    pool = GaussianPool2d(
        3, 2, 1, num_features=num_features, learnable=learnable, eps=0.5, dtype=torch.float64
    )
    assert pool.weight.shape == (1, num_features or 1, 1, 1)
    assert isinstance(pool.weight, nn.Parameter) == learnable
    torch.testing.assert_close(pool.weight.detach(), torch.full_like(pool.weight, math.log(2)))
    pool.weight.data = images(pool.weight.shape, seed=1)
    expected = functional.gaussian_pool2d(images(), pool.weight, 3, 2, 1, eps=0.5)
    assert torch.equal(pool(images()), expected)
    pool.reset_parameters()
    assert (pool.weight == math.log(2)).all()


def test_options_of_the_layer_with_a_weight_of_its_own():
    pool = GaussianPool2d(
        2, padding=1, count_include_pad=True, init_weight=0.0, dtype=torch.float64
    )
    expected = nn.functional.avg_pool2d(images(), 2, padding=1)
    torch.testing.assert_close(pool(images()), expected)
    assert "count_include_pad=True, num_features=None, init_weight=0.0" in repr(pool)


@pytest.mark.parametrize(
    "make",
    [
        lambda: GaussianPool2d(2, eps=0.0),
        lambda: GFGPGaussianPool2d(6, 2, eps=0.0),
        lambda: functional.gaussian_pool2d(images(), 1.0, 2, eps=-1.0),
    ],
)
def test_the_least_variance_is_above_0(make):
    with pytest.raises(ValueError, match="eps must be above 0 and finite, got"):
        make()


def test_names():
    assert poolings.gaussian_pool2d is functional.gaussian_pool2d
    assert isinstance(poolings.create_pooling("gauss", 6, 2), GFGPGaussianPool2d)
    assert poolings.create_pooling("gauss", 6, 2).stochasticity == "CN"
    assert poolings.create_pooling("gauss_unguided", 6, 2).weight.shape == (1, 6, 1, 1)


# ---------------------------------------------------------------- noise


def composed(layer, input):
    """The layer by its parts."""
    size = {"CN": (1, 1), "HWCN": (input.shape[2] // 2, input.shape[3] // 2)}[layer.stochasticity]
    weight = layer.head(input.mean((2, 3), keepdim=True), size)
    return functional.gaussian_pool2d(input, weight, 2)


@each_backend
@each_noise
def test_gradients_are_those_of_the_composition(backend, stochasticity):
    layer = noisy_layer(stochasticity).to(backend.device)
    input = images().to(backend.device).requires_grad_()

    def gradients(pool):
        torch.manual_seed(5)
        return torch.autograd.grad(pool().square().sum(), (input, *layer.parameters()))

    with use_backend(backend.name):
        fused = gradients(lambda: layer(input))
        expected = gradients(lambda: composed(layer, input))
    torch.testing.assert_close(fused, expected)


@each_noise
def test_gradients_of_both_orders_agree_with_finite_differences(stochasticity):
    layer = noisy_layer(stochasticity)
    input = images((2, 6, 4, 2)).requires_grad_()
    assert torch.autograd.gradcheck(seeded(layer), (input,))
    assert torch.autograd.gradgradcheck(seeded(layer), (input,))


@each_noise
def test_seed_decides_on_the_noise(stochasticity):
    layer = noisy_layer(stochasticity)
    first, again = (seeded(layer)(images()) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, layer(images()))


def test_another_draws_its_own():
    """Two layers of a network have noise that is not the same."""
    layer = noisy_layer()
    twin = copy.deepcopy(layer)
    torch.manual_seed(5)
    assert not torch.equal(layer(images()), twin(images()))


@each_noise
def test_checkpointing(stochasticity):
    layer = noisy_layer(stochasticity)
    input = images().requires_grad_()

    def gradients(run):
        torch.manual_seed(5)
        return torch.autograd.grad(run(input).square().sum(), (input, *layer.parameters()))

    def checkpointed(input):
        return torch.utils.checkpoint.checkpoint(layer, input, use_reentrant=False)

    torch.testing.assert_close(gradients(checkpointed), gradients(layer))


@each_noise
def test_vmap_keeps_the_rules_of_randomness(stochasticity):
    layer = noisy_layer(stochasticity)
    twice = torch.stack([images()] * 2)
    with pytest.raises(RuntimeError, match="randomness"):
        torch.func.vmap(layer)(twice)
    one, other = torch.func.vmap(layer, randomness="same")(twice)
    assert torch.equal(one, other)
    one, other = torch.func.vmap(layer, randomness="different")(twice)
    assert not torch.equal(one, other)
    torch.func.vmap(layer.eval())(twice)  # draws none


def test_gradients_of_each_sample():
    layer = noisy_layer(None)
    parameters = dict(layer.named_parameters())

    def loss(parameters, sample):
        return torch.func.functional_call(layer, parameters, (sample[None],)).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, images())
    layer(images()).square().sum().backward()
    for name, parameter in layer.named_parameters():
        wanted = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(each[name].sum(0), wanted)


@pytest.mark.parametrize(("stochasticity", "eps"), [("CN", 1e-3), ("HWCN", 1e-6)])
def test_compiled_layer(stochasticity, eps):
    torch._dynamo.reset()
    layer = noisy_layer(stochasticity, eps=eps)
    input = images().requires_grad_()

    def gradients(run):
        torch.manual_seed(5)
        return torch.autograd.grad(
            run(input).square().sum(), (input, *layer.head.mean.parameters())
        )

    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(gradients(compiled), gradients(layer))


@each_noise
def test_exported_for_training(stochasticity):
    layer = noisy_layer(stochasticity)
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(layer, (images(),), dynamic_shapes=({0: batch},)).module()
    more = images((5, 6, 8, 8), seed=2)
    torch.testing.assert_close(seeded(program)(more), seeded(layer)(more))
