"""replace_pooling of networks for sound and for video: poolings of one and of three axes."""

import copy
import functools
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gfgp_cupy
from gfgp_cupy import GatedPool2d, GFGPMaxEntPool2d, poolings, replace_pooling


def sound() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(1, 4, 5), nn.ReLU(), nn.MaxPool1d(3, 2, 1), nn.Conv1d(4, 6, 3),
        nn.AvgPool1d(2, ceil_mode=True), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip


def video() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool3d((1, 2, 2)),
        nn.Conv3d(4, 6, 3, padding=1), nn.AvgPool3d(3, 2, 1), nn.MaxPool3d(2, dilation=2),
        nn.Flatten(),
    )  # fmt: skip


SOUND, VIDEO = (2, 1, 40), (2, 3, 8, 12, 12)


@pytest.mark.parametrize(("network", "shape", "axes"), [(sound, SOUND, 1), (video, VIDEO, 3)])
def test_poolings_of_the_same_axes_take_their_place(network, shape, axes):
    torch.manual_seed(0)
    model = network()
    images = torch.randn(8, *shape[1:])
    expected = model(images).shape
    changes = replace_pooling(model, sample_shape=shape, unsupported="skip")
    assert [change.path for change in changes] == ["2", "4"]
    layer = getattr(gfgp_cupy, f"GFGPMaxEntPool{axes}d")
    assert type(model[2]) is type(model[4]) is layer
    assert [change.num_features for change in changes] == [4, 6]
    output = model(images)
    assert output.shape == expected
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with pytest.warns(UserWarning, match="changed nothing"):
        assert not replace_pooling(model, sample_shape=shape, unsupported="skip")  # none is left


def test_the_table_tells_the_sizes():
    changes = replace_pooling(video(), sample_shape=VIDEO, unsupported="skip")
    assert changes[0].was == "MaxPool3d(1x2x2/1x2x2)"
    assert changes[0].is_now == "GFGPMaxEntPool3d(1x2x2/1x2x2)"
    assert [left.path for left in changes.left] == ["5"]
    assert "dilation" in changes.left[0].reason


@pytest.mark.parametrize(("network", "shape"), [(sound, SOUND), (video, VIDEO)])
def test_as_was(network, shape):
    model = network().double().eval()
    images = torch.randn(8, *shape[1:], dtype=torch.float64)
    expected = copy.deepcopy(model)(images)
    replace_pooling(
        model, "max_ent_unguided", start="as_was", sample_shape=shape, unsupported="skip"
    )
    torch.testing.assert_close(model(images), expected, rtol=0, atol=0.02)


class Calling(nn.Module):
    """Pools by calls of functions."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        self.conv = conv(1, 4, 3, padding=1)
        self.by_torch = getattr(torch, f"max_pool{axes}d")
        self.maximum = getattr(F, f"max_pool{axes}d")
        self.average = getattr(F, f"avg_pool{axes}d")

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        map = self.by_torch(self.conv(input), 2)
        map = self.maximum(map, kernel_size=3, stride=2, padding=1)
        return self.average(map, 2, ceil_mode=True, count_include_pad=False)


def as_modules(model: Calling, axes: int) -> nn.Module:
    """What pools by modules of the same windows."""
    maximum = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[axes - 1]
    average = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[axes - 1]
    return nn.Sequential(
        model.conv, maximum(2), maximum(3, 2, 1),
        average(2, ceil_mode=True, count_include_pad=False),
    )  # fmt: skip


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_calls_are_replaced_as_modules_are(axes):
    model, shape = Calling(axes), (2, 1, *(12,) * axes)
    modules = copy.deepcopy(as_modules(model, axes))
    options = {"pool": "max_ent_unguided", "sample_shape": shape, "start": "as_was"}
    changes = replace_pooling(model, functional=True, **options)
    replace_pooling(modules, **options)
    assert [change.path for change in changes] == ["", "", ""]
    assert [change.num_features for change in changes] == [4, 4, 4]
    assert changes[1].was == f"F.max_pool{axes}d(3/2/1)"
    layer = getattr(gfgp_cupy, f"MaxEntPool{axes}d")
    assert all(type(pooling) is layer for pooling in model.pooling_calls)
    images = torch.randn(2, *shape[1:])
    torch.testing.assert_close(model(images), modules(images), rtol=0, atol=0)


def test_a_call_that_was_not_seen_is_named_with_its_axes():
    model = Calling(3)
    replace_pooling(model, functional=True, sample_shape=(2, 1, 16, 16, 16))
    model.average = lambda map, size, **_: F.max_pool3d(map, size)
    with pytest.raises(RuntimeError, match=r"calls max_pool3d\(kernel_size=\(2, 2, 2\)"):
        model(torch.randn(2, 1, 16, 16, 16))


def test_a_call_that_returns_indices_is_refused_whatever_its_axes():
    model = Calling(1)
    model.maximum = lambda map, **window: F.max_pool1d(map, **window, return_indices=True)[0]
    with pytest.raises(ValueError, match="return_indices=True"):
        replace_pooling(model, functional=True, sample_shape=(2, 1, 12))


@pytest.mark.parametrize("axes", [1, 3])
def test_a_window_of_the_whole_map_stays(axes):
    class Global(Calling):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return self.average(self.conv(input), input.shape[2:])

    with pytest.warns(UserWarning, match="changed nothing"):
        changes = replace_pooling(Global(axes), functional=True, sample_shape=(2, 1, *(6,) * axes))
    assert [left.reason for left in changes.left] == ["global"]


@pytest.mark.parametrize("axes", [1, 3])
def test_calls_that_were_replaced_compile_and_export(axes):
    model, images = Calling(axes), torch.randn(2, 1, *(12,) * axes)
    replace_pooling(model, "max_ent_unguided", functional=True, sample_shape=tuple(images.shape))
    expected = model(images)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), expected)
    torch.testing.assert_close(torch.export.export(model, (images,)).module()(images), expected)


@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize("pool", poolings.list_poolings())
def test_every_pooling_by_name(pool, axes):
    layer = poolings.create_pooling(pool, 4, kernel_size=2, axes=axes).eval()
    with gfgp_cupy.use_backend("torch"):  # Numba would compile each
        assert layer(torch.rand(2, 4, *(4,) * axes)).shape == (2, 4, *(2,) * axes)


class Named(GFGPMaxEntPool2d):
    """Whose name has no number of axes."""


@pytest.mark.parametrize(
    ("pool", "said"),
    [(GFGPMaxEntPool2d, "pool=GFGPMaxEntPool2d has no windows of 3 axes: GFGPMaxEntPool3d has"),
     (functools.partial(GFGPMaxEntPool2d, hidden_features=3), "GFGPMaxEntPool3d has"),
     (nn.MaxPool2d, "pool=MaxPool2d has no windows of 3 axes: MaxPool3d has"),
     (GatedPool2d, "pool=GatedPool2d has no windows of 3 axes: GatedPool3d has"),
     (Named, "pool=Named has no windows of 3 axes; leave")],
)  # fmt: skip
def test_where_a_pooling_has_no_such_windows(pool, said):
    """It is a place without an equivalent, as others are."""

    def network():
        return nn.Sequential(
            nn.Conv3d(3, 4, 3), nn.MaxPool3d(2), nn.Flatten(1, 2), nn.AvgPool2d(2, padding=0)
        )

    shape = (2, 3, 8, 8, 8)
    with pytest.raises(ValueError, match=f"'1' .*{re.escape(said)}") as caught:
        replace_pooling(network(), pool, sample_shape=shape)
    assert "where=lambda path, module: path != '1'" in str(caught.value)
    where = lambda path, module: path != "1"  # noqa: E731, as advised
    changes = replace_pooling(network(), pool, sample_shape=shape, where=where)
    assert [change.path for change in changes] == ["3"]
    changes = replace_pooling(network(), pool, sample_shape=shape, unsupported="skip")
    assert [change.path for change in changes] == ["3"]
    (left,) = changes.left
    assert left.path == "1" and said.split(";")[0] in left.reason
