"""The layers among PyTorch's other tools for modules: parametrisations, meta and fake tensors,
synchronised norms. Copies, pickles and state dicts are in test_layers.py."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.nn.utils import parametrizations, parametrize

from gfgp_cupy import GFGPMaxEntPool2d, MaxEntPool2d, use_backend
from gfgp_cupy.functional import max_ent_pool2d
from models import create_model
from tests.support.implementations import each_backend
from tests.support.random_numbers import random_numbers


def images(shape=(4, 6, 8, 8), device="cpu"):
    return random_numbers(shape, torch.float32, 0).to(device)


# ---------------------------------------------------------------- parametrisations


class Softplus(nn.Module):
    def forward(self, raw):
        return F.softplus(raw)

    def right_inverse(self, lam):
        return lam.expm1().log()


@each_backend
def test_parametrized_lam(backend):
    pool = MaxEntPool2d(2, num_features=6, init_lambda=0.8, device=backend.device)
    parametrize.register_parametrization(pool, "lam", Softplus())
    raw = pool.parametrizations.lam.original
    torch.testing.assert_close(pool.lam, torch.full_like(raw, 0.8))
    with torch.no_grad():
        raw.copy_(torch.linspace(-3, 3, 6).view(1, 6, 1, 1))
    input = images(device=backend.device)
    with use_backend(backend.name):
        output = pool(input)
        expected = max_ent_pool2d(input, F.softplus(raw), 2)
    torch.testing.assert_close(output, expected)
    output.square().sum().backward()
    (wanted,) = torch.autograd.grad(expected.square().sum(), raw)
    torch.testing.assert_close(raw.grad, wanted)


@each_backend
def test_weight_norm_of_the_head(backend):
    pool = GFGPMaxEntPool2d(6, 2, device=backend.device)
    plain = copy.deepcopy(pool)
    input = images(device=backend.device)
    for name in ("conv1", "conv2"):
        parametrizations.weight_norm(pool.head.get_submodule(name))
    with use_backend(backend.name):
        torch.testing.assert_close(pool(input), plain(input))
        pool(input).square().sum().backward()
    for name in ("conv1", "conv2"):
        originals = pool.head.get_submodule(name).parametrizations.weight
        assert all(p.grad.count_nonzero() > 0 for p in originals.parameters())


@pytest.mark.parametrize("kind", ["lam", "head"])
def test_parametrized_layers_are_copied_saved_and_compiled(kind):
    def create():
        if kind == "lam":
            pool = MaxEntPool2d(2, num_features=6)
            return parametrize.register_parametrization(pool, "lam", Softplus())
        pool = GFGPMaxEntPool2d(6, 2).eval()
        parametrizations.weight_norm(pool.head.conv1)
        return pool

    pool = create()
    with torch.no_grad():
        for seed, parameter in enumerate(pool.parameters()):
            parameter.copy_(random_numbers(parameter.shape, torch.float32, seed))
    expected = pool(images())
    file = io.BytesIO()
    torch.save(pool.state_dict(), file)
    file.seek(0)
    loaded = create()
    loaded.load_state_dict(torch.load(file))
    assert torch.equal(loaded(images()), expected)
    assert torch.equal(copy.deepcopy(pool)(images()), expected)
    torch._dynamo.reset()
    compiled = torch.compile(pool, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(images()), expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(pool(images()), expected)
    parametrize.remove_parametrizations(
        *((pool, "lam") if kind == "lam" else (pool.head.conv1, "weight"))
    )
    torch.testing.assert_close(pool(images()), expected)


# ---------------------------------------------------------------- tensors without numbers

each_format = pytest.mark.parametrize(
    "memory_format", [torch.contiguous_format, torch.channels_last], ids=str
)


@each_format
@pytest.mark.parametrize("mode", ["meta", "fake"])
@pytest.mark.parametrize(
    "create",
    [lambda: MaxEntPool2d(3, 2, 1, num_features=6), lambda: GFGPMaxEntPool2d(6, 3, 2, 1)],
    ids=["own lam", "guided"],
)
def test_shapes_and_strides_without_numbers(create, mode, memory_format):
    def run(device):
        with torch.device(device):
            pool = create()
            input = torch.ones(4, 6, 9, 8).to(memory_format=memory_format).requires_grad_()
        output = pool(input)
        output.sum().backward()
        tensors = [output, input.grad, *(parameter.grad for parameter in pool.parameters())]
        return [(tensor.shape, tensor.stride(), tensor.dtype) for tensor in tensors]

    expected = run("cpu")
    if mode == "meta":
        assert run("meta") == expected
    else:
        with FakeTensorMode():
            assert run("cpu") == expected


def test_network_on_the_meta_device():
    with torch.device("meta"):
        network = create_model("resnet18", pool="max_ent", num_classes=10)
        output = network(torch.empty(2, 3, 64, 64))
        output.sum().backward()
    assert output.shape == (2, 10)
    assert all(parameter.grad.is_meta for parameter in network.parameters())
    network.to_empty(device="cpu")
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    assert network(images((2, 3, 64, 64))).isfinite().all()


# ---------------------------------------------------------------- SyncBatchNorm


def test_conversion_to_sync_batch_norm():
    network = create_model("resnet18", pool="max_ent", num_classes=10)
    with torch.no_grad():
        network(images((4, 3, 64, 64)))  # gives the statistics values of their own
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network))
    heads = [module.head for module in converted.modules() if hasattr(module, "head")]
    assert len(heads) == 5
    assert not any(type(module) is nn.BatchNorm2d for module in converted.modules())
    for head in heads:
        assert isinstance(head.norm1, nn.SyncBatchNorm)
        assert isinstance(head.norm2, nn.SyncBatchNorm)
    converted.load_state_dict(network.state_dict())
    input = images((2, 3, 64, 64))
    assert torch.equal(converted.eval()(input), network.eval()(input))
