"""The published layers: arguments, tensors by their published names, the numbers of our own."""

import copy
import inspect
import pickle
import re

import pytest
import torch
from torch import nn

import gfgp_cupy
from gfgp_cupy import GFGPMaxEntPool2d
from gfgp_cupy.poolings.gaussian import GFGPGaussianPool2d
from gfgp_cupy.published import GaussianPooling2d, GaussianPoolingCuda2d, MaxEntPoolingCuda2d
from tests.support.random_numbers import random_numbers

LAYERS = {
    "max_ent": MaxEntPoolingCuda2d,
    "gauss_cuda": GaussianPoolingCuda2d,
    "gauss": GaussianPooling2d,
}
each_layer = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
CONVOLUTIONS_AND_NORMS = {
    "max_ent": ("ToParam.1", "ToParam.2", "ToParam.4", "ToParam.5"),
    "gauss_cuda": (
        *("ToHidden.1", "ToHidden.2", "ToMean.0", "ToMean.1", "ToSigma.0", "ToSigma.1"),
    ),
}
CONVOLUTIONS_AND_NORMS["gauss"] = CONVOLUTIONS_AND_NORMS["gauss_cuda"]
"""In the published order: a convolution, then its norm."""


def published_shapes(name, features=6, hidden=3):
    """As https://github.com/tk1980/GFGP and …/GaussianPooling save a layer."""
    shapes = {}
    paths = CONVOLUTIONS_AND_NORMS[name]
    for number, (conv, norm) in enumerate(zip(paths[::2], paths[1::2], strict=True)):
        out, into = (hidden, features) if number == 0 else (features, hidden)
        shapes |= {f"{conv}.weight": (out, into, 1, 1), f"{conv}.bias": (out,)}
        shapes |= {f"{norm}.{tensor}": (out,) for tensor in NORM[:-1]}
        shapes[f"{norm}.{NORM[-1]}"] = ()
    return shapes


def with_random_tensors(module):
    for seed, tensor in enumerate(module.state_dict().values()):
        if tensor.is_floating_point():
            tensor.copy_(random_numbers(tensor.shape, tensor.dtype, seed).abs() + 0.1)
        else:
            tensor.fill_(seed)
    return module


def images(seed=0):
    return random_numbers((4, 6, 8, 8), torch.float32, seed)


def test_arguments_are_the_published_ones():
    """In their order, with their defaults; device and dtype are PyTorch's own, behind them."""
    window = [("num_features",), ("kernel_size",), ("stride", None), ("padding", 0)]
    window.append(("ceil_mode", False))
    expected = {
        MaxEntPoolingCuda2d: [("activation", "sigmoid"), ("hidden_node", None)],
        GaussianPoolingCuda2d: [
            *(("count_include_pad", False), ("hidden_node", None)),
            *(("stochasticity", "HWCN"), ("eps", 1e-6)),
        ],
    }
    expected[GaussianPooling2d] = [
        ("count_include_pad", True),
        *expected[GaussianPoolingCuda2d][1:],
    ]
    for layer, arguments in expected.items():
        found = list(inspect.signature(layer).parameters.values())
        given = [
            (each.name,) if each.default is each.empty else (each.name, each.default)
            for each in found
        ]
        assert given == [*window, *arguments, ("device", None), ("dtype", None)]


def test_the_max_ent_layer_is_the_packages():
    assert gfgp_cupy.MaxEntPoolingCuda2d is MaxEntPoolingCuda2d


@pytest.mark.parametrize("name", LAYERS)
def test_state_dict_has_the_published_names_shapes_and_order(name):
    state_dict = LAYERS[name](6, 2).state_dict()
    assert {key: tuple(t.shape) for key, t in state_dict.items()} == published_shapes(name)
    assert list(state_dict) == list(published_shapes(name))


@pytest.mark.parametrize("name", LAYERS)
def test_published_tensors_come_back_as_they_were(name):
    """From inside a network, whose other tensors stay where they are."""
    network = nn.Sequential(nn.Conv2d(3, 6, 1), LAYERS[name](6, 2), nn.BatchNorm2d(6))
    saved = with_random_tensors(network).state_dict()
    names = [f"1.{key}" for key in published_shapes(name)]
    assert list(saved) == ["0.weight", "0.bias", *names, *(f"2.{tensor}" for tensor in NORM)]
    loaded = copy.deepcopy(network)
    with_random_tensors(loaded[0])
    nn.init.zeros_(loaded[1].head.conv1.weight)
    loaded.load_state_dict(saved)
    for key, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, saved[key]), key


OWN = {"max_ent": GFGPMaxEntPool2d, "gauss_cuda": GFGPGaussianPool2d}


@pytest.mark.parametrize("name", OWN)
def test_tensors_go_to_our_own_layer_and_back(name):
    published, own = with_random_tensors(LAYERS[name](6, 2)), OWN[name](6, 2)
    own.load_state_dict(published.state_dict())
    assert not any(re.match("To[A-Z]", key) for key in own.state_dict())
    back = LAYERS[name](6, 2)
    back.load_state_dict(own.state_dict())
    for key, tensor in back.state_dict().items():
        assert torch.equal(tensor, published.state_dict()[key]), key


@pytest.mark.parametrize("name", LAYERS)
def test_loading_is_strict(name):
    layer = LAYERS[name](6, 2)
    complete = layer.state_dict()
    first = next(iter(complete))
    with pytest.raises(RuntimeError, match=r'Missing .*"head\.conv1\.weight"'):
        layer.load_state_dict({key: t for key, t in complete.items() if key != first})
    for extra in ("head.conv3.weight", "ToParam.3.weight", "weight"):
        with pytest.raises(RuntimeError, match=f'Unexpected .*"{extra}"'):
            layer.load_state_dict({**complete, extra: torch.zeros(1)})
    with pytest.raises(RuntimeError, match=f'Unexpected .*"{first}"'):
        layer.load_state_dict({**complete, "head.conv1.weight": complete[first]})


def published_max_ent(layer, input):
    """λ as the published layer has it."""
    return torch.sigmoid(layer.ToParam(input))


def published_gaussian(layer, input):
    """w of evaluation mode as the published layer has it."""
    return nn.functional.softplus(layer.ToMean(layer.ToHidden(input)))


@each_layer
def test_published_attributes_are_the_heads_own_modules(layer):
    pool = with_random_tensors(layer(6, 2))
    paths = {key.rpartition(".")[0] for key in pool.state_dict() if not key.endswith(NORM[-1])}
    for path in paths:
        attribute, index = path.split(".")
        module = getattr(pool, attribute)[int(index)]
        assert any(module is own for own in pool.head.modules()), path
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, pool.state_dict()[f"{path}.{name}"]), path
    assert {name.partition(".")[0] for name, _ in pool.named_parameters()} == {"head"}
    assert [name for name, _ in pool.named_children()] == ["head"]


def test_published_attributes_compute_the_parameter():
    max_ent = with_random_tensors(MaxEntPoolingCuda2d(6, 2)).eval()
    lam = published_max_ent(max_ent, images())
    expected = gfgp_cupy.functional.max_ent_pool2d(images(), lam, 2)
    torch.testing.assert_close(max_ent(images()), expected)
    gauss = with_random_tensors(GaussianPoolingCuda2d(6, 2)).eval()
    weight = published_gaussian(gauss, images())
    expected = gfgp_cupy.poolings.gaussian.gaussian_pool2d(images(), weight, 2)
    torch.testing.assert_close(gauss(images()), expected)


def test_our_own_guided_layers_have_the_attribute_too():
    for layer in (GFGPMaxEntPool2d, gfgp_cupy.GFGPMixedPool2d):
        pool = layer(6, 2)
        assert pool.ToParam[1] is pool.head.conv1
        assert pool.ToParam[5] is pool.head.norm2
        assert len(pool.ToParam) == 6


def test_numbers_are_those_of_our_own_layers():
    torch.manual_seed(0)
    published = MaxEntPoolingCuda2d(6, 3, 2, 1, True, "softplus", 4)
    torch.manual_seed(0)
    own = GFGPMaxEntPool2d(6, 3, 2, 1, True, activation="softplus", hidden_features=4)
    assert torch.equal(published(images()), own(images()))
    torch.manual_seed(0)
    published = GaussianPoolingCuda2d(6, 3, 2, 1, True, True, 4, "CN", 0.1)(images())
    torch.manual_seed(0)
    own = GFGPGaussianPool2d(
        6, 3, 2, 1, True, hidden_features=4, stochasticity="CN", count_include_pad=True, eps=0.1
    )(images())
    assert torch.equal(published, own)


def test_the_layer_without_a_kernel_counts_the_padding():
    torch.manual_seed(0)
    with_padding = GaussianPooling2d(6, 3, 2, 1).eval()
    without = GaussianPoolingCuda2d(6, 3, 2, 1).eval()
    without.load_state_dict(with_padding.state_dict())
    counted, inside = with_padding(images()), without(images())
    torch.testing.assert_close(counted[:, :, 1:-1, 1:-1], inside[:, :, 1:-1, 1:-1])
    assert not torch.allclose(counted[:, :, 0], inside[:, :, 0])


@each_layer
@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))]
)
def test_copies_save_and_load_by_themselves(layer, duplicate):
    original = with_random_tensors(layer(6, 2)).eval()
    twin = duplicate(original)
    assert torch.equal(twin(images()), original(images()))
    assert list(twin.state_dict()) == list(original.state_dict())
    twin.load_state_dict({key: torch.zeros_like(t) for key, t in original.state_dict().items()})
    assert not any(parameter.any() for parameter in twin.parameters())
    assert all(parameter.any() for parameter in original.parameters())


@each_layer
def test_state_dict_can_be_called_with(layer):
    """As ``torch.func.functional_call`` takes it, though parameters have our own names."""
    pool = with_random_tensors(layer(6, 2)).eval()
    zeros = {key: torch.zeros_like(t) for key, t in pool.state_dict().items()}
    output = torch.func.functional_call(pool, zeros, (images(),))
    assert not torch.equal(output, pool(images()))


@pytest.mark.parametrize("name", ["MaxEntPoolingCuda2d", "GaussianPoolingCuda2d"])
def test_the_representation_has_the_published_arguments(name):
    layer = getattr(gfgp_cupy, name)(8, 2, hidden_node=3)
    shown = repr(layer).partition("\n  (")[0].replace("\n", "")
    assert "hidden_node=3" in shown and "hidden_features" not in shown
    again = eval(shown + ")", {name: type(layer)})
    assert repr(again) == repr(layer)
