"""One pooling that a network calls after several layers."""

import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gfgp_cupy import GFGPMaxEntPool2d, replace_pooling
from gfgp_cupy.poolings import SoftPool2d
from gfgp_cupy.surgery import PoolingByChannels

IMAGES = (2, 3, 16, 16)


class LeNet(nn.Module):
    """As tutorials write it: one pooling, called twice."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 6, 3, padding=1)
        self.pool = nn.MaxPool2d(2, 2)
        self.fc = nn.Linear(6 * 4 * 4, 5)

    def forward(self, x):
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        return self.fc(x.flatten(1))


def replaced(pool="max_ent", **options):
    model = LeNet()
    return model, replace_pooling(model, pool, sample_shape=IMAGES, **options)


def test_each_number_of_channels_has_its_own():
    model, changes = replaced()
    assert [(change.path, change.num_features, change.is_now) for change in changes] == [
        ("pool", 6, "GFGPMaxEntPool2d(2/2) for each of 4, 6")
    ]
    assert isinstance(model.pool, PoolingByChannels)
    assert {name: pool.num_features for name, pool in model.pool.items()} == {"4": 4, "6": 6}
    assert all(isinstance(pool, GFGPMaxEntPool2d) for pool in model.pool.values())
    model(torch.randn(IMAGES)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_pooling_without_tensors_serves_all():
    model, _ = replaced("soft")
    assert type(model.pool) is SoftPool2d
    model(torch.randn(IMAGES))


@pytest.mark.parametrize("pool", ["max_ent", "soft"])
def test_for_fewer_than_min_channels_the_old_one_stays_in_use(pool):
    model, changes = replaced(pool, min_channels=5)
    new = type(model.pool["6"]).__name__
    assert [(change.num_features, change.is_now) for change in changes] == [
        (6, f"{new}(2/2) for 6, MaxPool2d(2/2) for 4")
    ]
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(model.pool(x), F.max_pool2d(x, 2))
    assert not torch.equal(model.pool(x.repeat(1, 2, 1, 1)[:, :6])[:, :4], F.max_pool2d(x, 2))
    model(torch.randn(IMAGES)).sum().backward()


def test_hooks_are_called_once_whichever_pools():
    model, calls = LeNet(), []
    model.pool.register_forward_hook(lambda module, args, output: calls.append(module))
    replace_pooling(model, min_channels=5, sample_shape=IMAGES)
    model(torch.randn(IMAGES))
    assert calls == [model.pool] * 2


def test_other_channels_are_refused():
    model, _ = replaced()
    with pytest.raises(ValueError, match="input has 5 channels, and there are poolings for 4, 6"):
        model.pool(torch.randn(2, 5, 8, 8))


def test_each_starts_as_it_was():
    model = LeNet().eval()
    x = torch.randn(IMAGES)
    before = model(x)
    replace_pooling(model, start="as_was", sample_shape=IMAGES)
    assert isinstance(model.pool, PoolingByChannels)
    torch.testing.assert_close(model(x), before, rtol=0.01, atol=0.01)


@pytest.mark.parametrize(
    "route",
    {
        "compile": lambda model, x: torch.compile(model, backend="eager", fullgraph=True),
        "export": lambda model, x: torch.export.export(model, (x,)).module(),
        "fx": lambda model, x: torch.fx.symbolic_trace(model),
        "pickle": lambda model, x: pickle.loads(pickle.dumps(model)),
    }.items(),
    ids=lambda item: item[0],
)
def test_routes(route):
    model, _ = replaced()
    x = torch.randn(IMAGES)
    model.eval()
    torch.testing.assert_close(route[1](model, x)(x), model(x))
