"""A start from what was there: pooled maps, and so logits, as they were."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from gfgp_cupy import (
    GatedPool2d,
    GFGPGatedPool2d,
    GFGPGeneralizedMeanPool2d,
    GFGPLogSumExpPool2d,
    GFGPMaxEntPool2d,
    GFGPMixedPool2d,
    LogSumExpPool2d,
    MaxEntPool2d,
    MixedPool2d,
    SoftPool2d,
    record_lambdas,
    replace_pooling,
)
from gfgp_cupy.norms import LayerNorm2d
from gfgp_cupy.surgery.start import start_as

IMAGES = (2, 3, 32, 32)
LEARNED = (MaxEntPool2d, LogSumExpPool2d, MixedPool2d)
GUIDED = (GFGPMaxEntPool2d, GFGPLogSumExpPool2d, GFGPMixedPool2d, GFGPGatedPool2d)
WINDOWS = ((2, 2, 0), (3, 2, 1))

replace = partial(replace_pooling, start="as_was", sample_shape=IMAGES)


def pooled(was, input, window):
    if was == "max":
        return F.max_pool2d(input, *window)
    return F.avg_pool2d(input, *window, count_include_pad=False)


def share_of_deviation(found, expected):
    """Root mean square of the difference, in standard deviations of what is expected."""
    return ((found - expected).square().mean().sqrt() / expected.std()).item()


def relu_maps(scale, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(8, 8, 16, 16, generator=generator).relu()


def layer_of(kind, window, **options):
    return kind(
        num_features=8, kernel_size=window[0], stride=window[1], padding=window[2], **options
    )


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize(
    ("was", "scales"), [("max", (0.05, 1.0, 50.0)), ("avg", (0.01, 1.0, 4.0))], ids=["max", "avg"]
)
@pytest.mark.parametrize("kind", (*LEARNED, *GUIDED))
def test_maps_of_a_relu_differ_by_less_than_a_hundredth_of_their_deviation(
    kind, was, scales, window
):
    pool = layer_of(kind, window)
    start_as(pool, was)
    for training in (True, False):
        pool.train(training)
        for scale in scales:
            x = relu_maps(scale)
            assert share_of_deviation(pool(x), pooled(was, x, window)) < 0.01, (scale, training)


@pytest.mark.parametrize("norm_layer", [None, LayerNorm2d, nn.Identity])
@pytest.mark.parametrize("was", ["max", "avg"])
@pytest.mark.parametrize("kind", GUIDED)
def test_a_head_starts_constant_and_learns(kind, was, norm_layer):
    pool = layer_of(kind, WINDOWS[0], norm_layer=norm_layer)
    start_as(pool, was)
    with record_lambdas(pool) as lambdas:
        pool(relu_maps(1.0)).square().sum().backward()
    assert lambdas[""].std(0).max() == 0
    last = pool.head.conv2 if norm_layer is nn.Identity else pool.head.norm2
    assert last.weight.grad.count_nonzero() > 0 and last.bias.grad.count_nonzero() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types(dtype):
    for was in ("max", "avg"):
        pool = layer_of(GFGPMaxEntPool2d, WINDOWS[0], dtype=dtype)
        start_as(pool, was)
        x = relu_maps(1.0).to(dtype)
        assert share_of_deviation(pool(x).float(), pooled(was, x, WINDOWS[0]).float()) < 0.01


def test_a_sigmoid_stays_where_it_can():
    model = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(3, 8, 3), nn.AvgPool2d(2))
    replace(model)
    assert [model[0].activation, model[2].activation] == ["softplus", "sigmoid"]
    assert [type(model[i].head.activation) for i in (0, 2)] == [nn.Softplus, nn.Sigmoid]
    # The same arguments make what its state dict fits.
    twin = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(3, 8, 3), nn.AvgPool2d(2))
    replace(twin)
    model(torch.rand(IMAGES))  # moves the running statistics
    twin.load_state_dict(model.state_dict())
    x = torch.rand(IMAGES)
    assert torch.equal(twin.eval()(x), model.eval()(x))


NETWORKS = {
    "resnet18": torchvision.models.resnet18,
    "vgg without norms": lambda: torchvision.models.vgg.make_layers(
        [64, "M", 128, "M", 256, 256, "M"]
    ),
    "densenet": lambda: torchvision.models.DenseNet(8, (2, 2, 2), 16),
    "squeezenet1_1": torchvision.models.squeezenet1_1,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_torchvision_pool_as_they_did(name):
    torch.manual_seed(0)
    model = NETWORKS[name]().eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = model(x)
        was = dict(copy.deepcopy(model).named_modules())
        differences = {}

        def compare(path, layer, inputs, output):
            differences[path] = share_of_deviation(output, was[path](*inputs))

        changes = replace(model, sample_shape=x.shape)
        for change in changes:
            layer = model.get_submodule(change.path)
            layer.register_forward_hook(partial(compare, change.path))
        after = model(x)
    assert len(differences) == len(changes) >= 1
    assert max(differences.values()) < 0.01, differences
    assert share_of_deviation(after, before) < 0.01


def test_a_callable_starts_likewise():
    model = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(3, 8, 3), nn.AvgPool2d(2))
    x = torch.rand(IMAGES)
    before = model(x)
    replace(model, partial(GFGPMaxEntPool2d, norm_layer=LayerNorm2d))
    torch.testing.assert_close(model(x), before, rtol=0, atol=2e-3)


def test_a_pooling_for_several_numbers_of_channels_starts_so_for_each():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool = nn.MaxPool2d(2)
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, x):
            return self.pool(self.conv(self.pool(x)))

    model = Twice()
    x = torch.rand(IMAGES)
    before = model(x)
    replace(model)
    torch.testing.assert_close(model(x), before, rtol=0, atol=2e-3)


def test_calls_inside_a_forward_start_likewise():
    class Calls(nn.Module):
        def forward(self, x):
            return F.avg_pool2d(F.max_pool2d(x, 2), 2)

    model = nn.Sequential(Calls())
    x = torch.rand(IMAGES)
    before = model(x)
    assert len(replace(model, functional=True)) == 2
    torch.testing.assert_close(model(x), before, rtol=0, atol=2e-3)


# What has no such start


@pytest.mark.parametrize(
    "make",
    [
        "gem",
        "gated",
        "soft",
        partial(GFGPGeneralizedMeanPool2d),
        lambda num_features, *window, device, dtype: SoftPool2d(*window),
        lambda num_features, *window, device, dtype: GatedPool2d(*window),
    ],
)
def test_others_are_refused_and_leave_the_network(make):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2))
    modules = list(model)
    with pytest.raises(ValueError, match=r"one of MaxEntPool2d, GFGPMaxEntPool2d,.*, got [GS]"):
        replace(model, make)
    assert list(model) == modules


def test_a_stride_is_refused_and_the_advice_works():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.MaxPool2d(2))
    with pytest.raises(ValueError, match=r"'0' computes none of.*second call"):
        replace(model, strided_convs=True)
    assert [type(module) for module in model] == [nn.Conv2d, nn.MaxPool2d]
    assert [change.path for change in replace(model)] == ["1"]
    assert isinstance(model[1], GFGPMaxEntPool2d)
    again = replace_pooling(model, strided_convs=True, sample_shape=IMAGES)
    assert [change.path for change in again] == ["0"]


def test_strides_that_move_behind_blocks_are_refused():
    model = torchvision.models.resnet18()
    with pytest.raises(ValueError, match=r"'conv1', 'layer2.0', .* compute none of"):
        replace(model, strides="after_blocks")
    assert [change.path for change in replace(model)] == ["maxpool"]


def test_norms_without_scale_and_shift_are_refused():
    plain = partial(nn.BatchNorm2d, affine=False)
    with pytest.raises(ValueError, match=r"BatchNorm2d has none"):
        replace(nn.Sequential(nn.MaxPool2d(2)), partial(GFGPMaxEntPool2d, norm_layer=plain))


def test_other_starts_are_refused():
    with pytest.raises(ValueError, match=r"start must be None or 'as_was', got 'as was'"):
        replace_pooling(nn.Sequential(nn.MaxPool2d(2)), start="as was")


@pytest.mark.parametrize("saved, loaded", [("as_was", None), (None, "as_was")])
def test_state_dict_of_another_start_is_refused(tmp_path, saved, loaded):
    """Its tensors fit, and would mean another λ."""

    def network(start):
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2))
        replace_pooling(net, start=start, sample_shape=IMAGES)
        return net

    torch.save(network(saved).state_dict(), tmp_path / "net.pt")
    tensors = torch.load(tmp_path / "net.pt", weights_only=True)
    network(saved).load_state_dict(tensors)
    with pytest.raises(RuntimeError, match=r"1\.head was saved .* activation=.*start='as_was'"):
        network(loaded).load_state_dict(tensors)
