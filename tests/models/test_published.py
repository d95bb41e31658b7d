"""The networks called as the published code calls them."""

import inspect

import pytest
import torch

import models
from gfgp_cupy import GFGPMaxEntPool2d
from models import create_model, list_models
from tests.support.networks_without_memory import without_memory

FAMILY_POOLS = {"densenet": "avg", "resne": "skip", "vgg": "max"}
"""As https://github.com/tk1980/GFGP has them: defaults of ``ptype``, by the beginning of a name."""


def default_pool(name):
    (pool,) = (pool for beginning, pool in FAMILY_POOLS.items() if name.startswith(beginning))
    return pool


@pytest.mark.parametrize("name", list_models())
def test_every_network_is_a_function(name):
    """In the module's dict, where the published code looks it up, as lower-case callables."""
    function = models.__dict__[name]
    assert callable(function)
    assert name.islower()
    assert function.__name__ == name
    assert inspect.getdoc(function).startswith(f"Return {name} ")
    with without_memory():
        by_default, guided = function(), function(num_classes=7, ptype="max_ent")
        expected = create_model(name, default_pool(name), 1000)
        assert str(guided) == str(create_model(name, "max_ent", 7))
    assert str(by_default) == str(expected)


def test_nothing_else_looks_like_a_network():
    """The published code's list of networks: lower-case names of callables."""
    found = [
        name
        for name, value in models.__dict__.items()
        if name.islower() and not name.startswith("__") and callable(value)
    ]
    assert sorted(found) == sorted(
        [*list_models(), "create_model", "from_pretrained", "list_models"]
    )


def test_seed_decides_on_the_weights():
    torch.manual_seed(0)
    published = models.resnet18(False, True, num_classes=3, ptype="max_ent")
    torch.manual_seed(0)
    own = create_model("resnet18", "max_ent", 3)
    for name, tensor in published.state_dict().items():
        assert torch.equal(tensor, own.state_dict()[name]), name


@pytest.mark.parametrize("name", ["resnet18", "vgg11bow_bn", "densenet121"])
def test_heads_are_reachable_by_their_published_name(name):
    with without_memory():
        network = models.__dict__[name](ptype="max_ent")
    pools = [module for module in network.modules() if isinstance(module, GFGPMaxEntPool2d)]
    assert len(pools) == {"resnet18": 5, "vgg11bow_bn": 4, "densenet121": 5}[name]
    for pool in pools:
        assert pool.ToParam[4].weight is pool.head.conv2.weight


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"pretrained": True}, ValueError, r"resnet18\(pretrained=True\).*--pretrained"),
        ({"ptype": "maxent"}, ValueError, "pool 'maxent'.*'max_ent'"),
        ({"num_classes": 0}, ValueError, "num_classes"),
        ({"num_classes": 2.0}, TypeError, "num_classes"),
        ({"pool": "max"}, TypeError, "pool"),
    ],
)
def test_bad_arguments(options, error, words):
    with pytest.raises(error, match=words):
        models.resnet18(**options)
