"""Maps that no weighted mean can pool: of integers, and with infinity in them."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gfgp_cupy import replace_pooling
from tests.support.small_networks import Lambda

IMAGES = (2, 3, 16, 16)


def replace(model, **options):
    return replace_pooling(model, sample_shape=IMAGES, **options)


class Pools(nn.Module):
    """Pools what ``prepare`` makes of a map and, by another pooling, the map."""

    def __init__(self, prepare, pool=None, axes=2):
        super().__init__()
        self.conv = (nn.Conv1d, nn.Conv2d)[axes - 1](3, 4, 3, padding=1)
        self.pool = pool or (nn.MaxPool1d, nn.MaxPool2d)[axes - 1](2)
        self.plain = (nn.MaxPool1d, nn.MaxPool2d)[axes - 1](2)
        self.prepare = prepare

    def forward(self, x):
        y = self.conv(x)
        return self.plain(y), self.pool(self.prepare(y))


def check_refused(make, reason):
    """Refused by path; left, and listed, where asked; and the advice is good."""
    with pytest.raises(ValueError, match=rf"'pool' \(MaxPool.*\): {reason}") as raised:
        replace(make())
    assert "leave it out with where=lambda path, module: path != 'pool'" in str(raised.value)
    model = make()
    changes = replace(model, unsupported="skip")
    assert [change.path for change in changes] == ["plain"]
    assert [row.path for row in changes.left] == ["pool"]
    assert not any(y.isnan().any() for y in model(torch.randn(IMAGES)))
    assert len(replace(make(), where=lambda path, module: path != "pool")) == 1


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
def test_maps_of_integers_are_refused(dtype):
    check_refused(
        lambda: Pools(lambda y: (y > 0).to(dtype)), rf"pools {dtype}, and the new one's weights"
    )


def test_one_pooling_of_fractions_and_of_integers_is_refused():
    class Twice(Pools):
        def forward(self, x):
            y, pooled = super().forward(x)
            return y, pooled * self.pool((x > 0).amax(1, keepdim=True).byte())

    check_refused(lambda: Twice(nn.Identity()), "pools torch.uint8")


def cover(y):
    return torch.arange(y.shape[-1]) > 12


FILLED = {
    "F.pad": lambda y: F.pad(y, (0, 1, 0, 1), value=-math.inf),
    "F.pad, all by place": lambda y: F.pad(y, (0, 1, 0, 1), "constant", -math.inf),
    "ConstantPad2d": nn.ConstantPad2d((0, 1, 0, 1), -math.inf),
    "constant_pad_nd": lambda y: torch.constant_pad_nd(y, (0, 1), -math.inf),
    "masked_fill": lambda y: y.masked_fill(cover(y), -math.inf),
    "torch.masked_fill": lambda y: torch.masked_fill(y, cover(y), value=-math.inf),
    "masked_fill_": lambda y: y.relu().masked_fill_(cover(y), -math.inf),
    "infinity": lambda y: y.masked_fill(cover(y), math.inf),
    "where": lambda y: torch.where(cover(y), -math.inf, y),
}


@pytest.mark.parametrize("fill", FILLED.values(), ids=FILLED)
def test_maps_with_infinity_are_refused(fill):
    check_refused(
        lambda: Pools(fill), r"is given a map that was padded or filled with infinity.*padding="
    )


def test_lines_with_infinity_are_refused():
    model = Pools(FILLED["masked_fill"], axes=1)
    with pytest.raises(ValueError, match=r"'pool' \(MaxPool1d.* filled with infinity"):
        replace_pooling(model, sample_shape=(2, 3, 16))


def test_calls_with_infinity_are_refused():
    def make():
        return nn.Sequential(
            nn.Conv2d(3, 4, 1), Lambda(lambda _, x: F.max_pool2d(FILLED["F.pad"](x), 3, 2))
        )

    with pytest.raises(ValueError, match=r"'1' \(F\.max_pool2d.*\): .* filled with infinity"):
        replace(make(), functional=True)
    with pytest.warns(UserWarning, match="changed nothing"):
        (row,) = replace(make(), functional=True, unsupported="skip").left
    assert "infinity" in row.reason


FINITE = {
    "zeros": lambda y: F.pad(y, (0, 1, 0, 1)),
    "numbers": lambda y: y.masked_fill(cover(y), -1e4),
    "taken away again": lambda y: F.pad(y, (0, 1, 0, 1), value=-math.inf)[..., :-1, :-1],
}


@pytest.mark.parametrize("prepare", FINITE.values(), ids=FINITE)
def test_other_maps_are_replaced(prepare):
    model = Pools(prepare)
    assert [change.path for change in replace(model)] == ["pool", "plain"]
    assert all(y.isfinite().all() for y in model(torch.randn(IMAGES)))


def test_the_poolings_own_padding_is_the_way_out():
    model = Pools(nn.Identity(), nn.MaxPool2d(3, 2, 1))
    assert len(replace(model)) == 2
    assert all(y.isfinite().all() for y in model(torch.randn(IMAGES)))
