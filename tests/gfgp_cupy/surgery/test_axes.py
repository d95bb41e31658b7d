"""replace_pooling of networks for sound and for video: poolings of one and of three axes."""

import copy

import pytest
import torch
from torch import nn

import gfgp_cupy
from gfgp_cupy import poolings, replace_pooling


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


def test_a_pooling_of_planes_cannot_take_the_place():
    with pytest.raises(ValueError, match="pool='gated' has windows of 2 axes alone, got axes=1"):
        replace_pooling(sound(), "gated", sample_shape=SOUND)


@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize("pool", [name for name in poolings.list_poolings() if "gated" not in name])
def test_every_pooling_by_name(pool, axes):
    layer = poolings.create_pooling(pool, 4, kernel_size=2, axes=axes).eval()
    with gfgp_cupy.use_backend("torch"):  # Numba would compile each
        assert layer(torch.rand(2, 4, *(4,) * axes)).shape == (2, 4, *(2,) * axes)
