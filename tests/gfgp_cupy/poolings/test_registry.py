"""The factory of the poolings, and the networks and the command line that take its names."""

import re

import pytest
import torch
from torch import nn

import gfgp_cupy
from gfgp_cupy.poolings import create_pooling, list_poolings
from models import create_model
from models.pooling import POOL_TYPES
from tests.support.command_line import error_here, output_here, read_log
from tests.support.paths import REPOSITORY
from tests.support.random_numbers import random_numbers
from training.command_line import make_parser

LAYERS = {
    "max": nn.MaxPool2d,
    "avg": nn.AvgPool2d,
    "soft": gfgp_cupy.SoftPool2d,
    "edscw": gfgp_cupy.EDSCWPool2d,
    "max_ent": gfgp_cupy.GFGPMaxEntPool2d,
    "max_ent_unguided": gfgp_cupy.MaxEntPool2d,
    "gauss": gfgp_cupy.GFGPGaussianPool2d,
    "gauss_unguided": gfgp_cupy.GaussianPool2d,
    "ada": gfgp_cupy.AdaPool2d,
    "gfgp_ada": gfgp_cupy.GFGPAdaPool2d,
    "mixed": gfgp_cupy.MixedPool2d,
    "gfgp_mixed": gfgp_cupy.GFGPMixedPool2d,
    "gated": gfgp_cupy.GatedPool2d,
    "gfgp_gated": gfgp_cupy.GFGPGatedPool2d,
    "gem": gfgp_cupy.GeneralizedMeanPool2d,
    "gfgp_gem": gfgp_cupy.GFGPGeneralizedMeanPool2d,
    "lse": gfgp_cupy.LogSumExpPool2d,
    "gfgp_lse": gfgp_cupy.GFGPLogSumExpPool2d,
}
PUBLISHED = ("max", "avg", "skip", "max_ent")
NEW = tuple(name for name in LAYERS if name not in PUBLISHED)
GAUSSIAN = ("gauss_cuda_CN", "gauss_cuda_HWCN", "gauss_CN", "gauss_HWCN")


def test_names():
    assert list_poolings() == list(LAYERS)
    assert (*PUBLISHED, *NEW, *GAUSSIAN) == POOL_TYPES


@pytest.mark.usefixtures("by_the_formula")
@pytest.mark.parametrize("pool", LAYERS)
def test_factory(pool):
    layer = create_pooling(
        pool, 6, kernel_size=3, stride=2, padding=1, ceil_mode=True, dtype=torch.float64
    )
    assert type(layer) is LAYERS[pool]
    for tensor in layer.state_dict().values():
        if tensor.is_floating_point():
            assert tensor.dtype == torch.float64
    x = random_numbers((2, 6, 8, 8), torch.float64, 0)
    expected = nn.MaxPool2d(3, 2, 1, ceil_mode=True)(x).shape
    assert layer(x).shape == expected
    assert create_pooling(pool, 6, 2, dtype=torch.float64)(x).shape == (2, 6, 4, 4)


@pytest.mark.parametrize(
    "pool", [name for name in LAYERS if name not in ("max", "avg", "soft", "edscw")]
)
def test_tensors_are_of_the_channels_and_on_the_device(pool):
    layer = create_pooling(pool, 6, kernel_size=2, device="meta")
    tensors = layer.state_dict().values()
    assert all(tensor.is_meta for tensor in tensors)
    assert 6 in next(iter(tensors)).shape


def test_the_docs_list_every_pooling_and_their_example_runs():
    text = (REPOSITORY / "docs" / "poolings.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| `(?:torch\.nn\.)?(\w+)`", text, flags=re.MULTILINE))
    assert rows == {name: layer.__name__ for name, layer in LAYERS.items()}
    (example,) = re.findall(
        r"```python\n((?:(?!```).)*GuidedHarmonic.*?)```", text, flags=re.DOTALL
    )
    names = {}
    exec(example, names)
    assert names["y"].shape == (8, 64, 28, 28)


def test_unknown_name():
    with pytest.raises(ValueError, match=r"pool 'gen'.*'gem'"):
        create_pooling("gen", 6, 2)
    with pytest.raises(ValueError, match=r"pool 'skip'.*max, avg, soft"):
        create_pooling("skip", 6, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pool"),
    [
        *(("resnetp18", pool) for pool in NEW),
        # What differs between the families is where their poolings are, not which.
        *(
            (name, pool)
            for name in ("densenet121", "vgg11bow_bn")
            for pool in ("gated", "gfgp_mixed")
        ),
    ],
)
def test_networks_learn_with_each_pooling(name, pool):
    model = create_model(name, pool, num_classes=7)
    layers = [module for module in model.modules() if type(module) is LAYERS[pool]]
    assert len(layers) == {"resnetp18": 4, "densenet121": 5, "vgg11bow_bn": 4}[name]
    output = model(torch.rand(2, 3, 32, 32))
    nn.functional.cross_entropy(output, torch.tensor([0, 6])).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
    for layer in layers:
        assert all(parameter.grad.any() for parameter in layer.parameters())


def test_command_line_trains_with_a_new_pooling(tmp_path):
    output = output_here(
        *("--dataset", "digits", "--arch", "resnetp18", "--pool", "gfgp_gem", "--cpu"),
        *("--epochs", 1, "--batch-size", 4, "--limit-train-batches", 1),
        *("--limit-val-batches", 1, "--workers", 0, "--out-dir", tmp_path),
    )
    assert "resnetp18 with gfgp_gem pooling" in output
    assert len(read_log(tmp_path)) == 1


def test_command_line_names_the_poolings():
    help_text = make_parser().format_help()
    for pool in POOL_TYPES:
        assert re.search(rf"\b{pool}\b", help_text), pool
    assert "'gfgp_gem'" in error_here("--pool", "gfgp_gen")
