"""The published networks with Gaussian pooling, against what is known of the published ones.

``data/published_gaussian_state_dicts.json.gz`` holds the names and shapes of every tensor of the 34
networks (https://github.com/tk1980/GaussianPooling), which are the same under all spellings.
"""

import gzip
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gfgp_cupy import GFGPGaussianPool2d
from models import create_model, list_models
from models.pooling import GAUSSIAN_POOL_TYPES
from models.state_dict import published_state_dict
from tests.models.test_models import empty_model, fill, logits
from tests.support.networks_without_memory import without_memory

DATA = Path(__file__).parent / "data/published_gaussian_state_dicts.json.gz"
with gzip.open(DATA) as file:
    PUBLISHED_SHAPES: dict[str, dict[str, list[int]]] = json.load(file)

SPELLINGS = ("gauss", *GAUSSIAN_POOL_TYPES)


def test_every_network_is_known():
    assert set(PUBLISHED_SHAPES) == {f"{name}/gauss" for name in list_models()}


@pytest.mark.parametrize(
    ("name", "pool"),
    [
        *((name, "gauss") for name in list_models()),
        *(("resnetp18", pool) for pool in GAUSSIAN_POOL_TYPES),
    ],
)
def test_state_dict_agrees_with_the_published_one(name, pool):
    with without_memory():
        model = create_model(name, pool)
    shapes = {key: list(tensor.shape) for key, tensor in published_state_dict(model).items()}
    assert shapes == PUBLISHED_SHAPES[f"{name}/gauss"]
    assert list(shapes) == list(PUBLISHED_SHAPES[f"{name}/gauss"])


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet18", 12_225_576),
        ("resnet50", 33_854_696),
        ("resnetp50", 33_848_072),
        ("resnext50_32x4d", 33_326_568),
        ("vgg16bow_bn", 38_248_520),
        ("vgg16orig_bn", 139_308_872),
        ("densenet169", 14_909_736),
    ],
)
def test_number_of_parameters(name, parameters):
    with without_memory():
        model = create_model(name, "gauss")
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("pool", "stochasticity", "counts_padding"),
    [
        ("gauss", "CN", False),
        ("gauss_cuda_CN", "CN", False),
        ("gauss_cuda_HWCN", "HWCN", False),
        ("gauss_CN", "CN", True),
        ("gauss_HWCN", "HWCN", True),
    ],
)
def test_spellings(pool, stochasticity, counts_padding):
    with without_memory():
        model = create_model("resnet18", pool)
    layers = [module for module in model.modules() if isinstance(module, GFGPGaussianPool2d)]
    assert len(layers) == 5
    assert {layer.stochasticity for layer in layers} == {stochasticity}
    assert {layer.count_include_pad for layer in layers} == {counts_padding}


class PublishedFormula(nn.Module):
    """The pooling as the published code writes it down: by the mean square less the squared mean.

    Its tensors have the published names.
    """

    def __init__(self, layer):
        super().__init__()
        features, hidden = layer.num_features, layer.hidden_features
        self.ToHidden = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(features, hidden, 1),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
        )
        self.ToMean = nn.Sequential(nn.Conv2d(hidden, features, 1), nn.BatchNorm2d(features))
        self.ToSigma = nn.Sequential(
            nn.Conv2d(hidden, features, 1), nn.BatchNorm2d(features), nn.Sigmoid()
        )
        self.window = layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode
        self.stochasticity = layer.stochasticity
        self.count_include_pad = layer.count_include_pad

    def forward(self, x):
        mean = F.avg_pool2d(x, *self.window, self.count_include_pad)
        square = F.avg_pool2d(x * x, *self.window, self.count_include_pad)
        deviation = (square - mean * mean).clamp(min=1e-6).sqrt()
        hidden = self.ToHidden(x)
        weight = self.ToMean(hidden)
        if self.training:
            shape = mean.shape if self.stochasticity == "HWCN" else (*mean.shape[:2], 1, 1)
            weight = weight + self.ToSigma(hidden) * torch.randn(shape, dtype=x.dtype)
        return mean + F.softplus(weight) * deviation


def with_published_formula(model):
    """``model`` with :class:`PublishedFormula` in the place of each of its poolings."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, GFGPGaussianPool2d):
                setattr(module, name, PublishedFormula(child))
    return model


@pytest.mark.parametrize(
    ("name", "pool"),
    [
        *(("resnet18", pool) for pool in ("gauss", "gauss_CN")),
        ("resnetp18", "gauss_cuda_HWCN"),
        ("densenet121", "gauss_HWCN"),
        ("vgg11bow_bn", "gauss_cuda_CN"),
    ],
)
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_logits_are_those_of_the_published_formula(name, pool, training):
    """Of the same tensors, which load strictly under their published names; and, in training, of
    the same random numbers."""
    tensors = fill(PUBLISHED_SHAPES[f"{name}/gauss"])
    model = empty_model(name, pool)
    model.load_state_dict({f"module.{key}": tensor for key, tensor in tensors.items()})
    with without_memory():
        published = with_published_formula(create_model(name, pool))
    published.double().to_empty(device="cpu").load_state_dict(tensors)
    torch.manual_seed(0)
    expected = logits(published.train(training))
    torch.manual_seed(0)
    output = logits(model.train(training))
    assert expected.std() > 1e-3
    # In training, BatchNorms of two samples make much of the rounding errors of mean squares.
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-6 if training else 1e-9)


@pytest.mark.parametrize("name", ["resnetp18", "vgg11bow_bn"])
def test_loading_is_strict(name):
    tensors = fill(PUBLISHED_SHAPES[f"{name}/gauss"])
    model = empty_model(name, "gauss")
    head = next(key for key in tensors if key.endswith(".ToSigma.0.weight"))
    with pytest.raises(RuntimeError, match=r'Missing .*head\.deviation\.conv\.weight"'):
        model.load_state_dict({key: t for key, t in tensors.items() if key != head})
    unknown = head.replace("ToSigma.0", "ToSigma.3")
    with pytest.raises(RuntimeError, match=f'Unexpected .*"{unknown}"'):
        model.load_state_dict({**tensors, unknown: tensors[head]})


@pytest.mark.parametrize("pool", ["gauss", "gauss_HWCN"])
def test_backward_reaches_the_heads(pool):
    torch.manual_seed(0)
    model = create_model("resnet18", pool, num_classes=10)
    F.cross_entropy(model(torch.rand(4, 3, 32, 32)), torch.arange(4)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if "head" in name and name.endswith("conv.weight"):
            assert parameter.grad.any(), name
