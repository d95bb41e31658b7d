"""strided_convs=True in what its library folds into one convolution: no pooling is lost."""

import copy
import pickle

import pytest
import torch
from timm.models.byobnet import LayerFn, MobileOneBlock, RepVggBlock
from timm.models.fastvit import ReparamLargeKernelConv
from timm.models.repvit import ConvNorm
from timm.utils import reparameterize_model
from torch import nn

from gfgp_cupy import GFGPMaxEntPool2d, replace_pooling


def pooled(unit, *others, **options):
    """A network of ``unit``, its norms as after training, with its stride replaced."""
    torch.manual_seed(0)
    model = nn.Sequential(unit, *others)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
    options = {"strided_convs": True, "sample_shape": (2, 8, 16, 16)} | options
    return model, replace_pooling(model, **options)


UNITS = {
    "RepVggBlock": lambda: RepVggBlock(8, 12, stride=2, layers=LayerFn()),
    "MobileOneBlock": lambda: MobileOneBlock(8, 12, stride=2, layers=LayerFn()),
    "ReparamLargeKernelConv": lambda: ReparamLargeKernelConv(8, 16, 7, 2, 8, small_kernel=3),
    "ConvNorm": lambda: ConvNorm(8, 12, 3, 2, 1),
}


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.parametrize("size", [16, 15])
def test_timms_reparameterize_model_keeps_the_pooling(name, size):
    strided = UNITS[name]()
    model, table = pooled(UNITS[name]())
    assert [(row.path, row.was) for row in table] == [("0", f"{name}(stride 2)")]
    model.eval()
    images = torch.randn(2, 8, size, size)
    with torch.no_grad():
        output = model(images)
        assert output.shape == strided.eval()(images).shape
        deployed = reparameterize_model(pickle.loads(pickle.dumps(model)))
        torch.testing.assert_close(deployed(images), output, rtol=1e-4, atol=1e-4)
    assert sum(isinstance(m, GFGPMaxEntPool2d) for m in deployed.modules()) == 1
    # One convolution is left beside the two of the head.
    convs = [m for m in deployed.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) - 2 == 1
    copied = copy.deepcopy(deployed)
    assert torch.equal(copied(images), deployed(images))


class Unit(nn.Sequential):
    def fuse(self):
        return self


def test_slices_pool_where_they_end_as_the_unit_does():
    model, _ = pooled(Unit(nn.Conv2d(8, 12, 3, 2, 1), nn.BatchNorm2d(12)))
    unit, images = model.eval()[0], torch.randn(2, 8, 16, 16)
    conv, norm = unit
    assert unit[-1] is norm and len(unit) == 2
    assert [list(part) for part in (unit[:-1], unit[1:], unit[:])] == [[conv], [norm], [conv, norm]]
    torch.testing.assert_close(unit[:-1](images), conv(images))
    torch.testing.assert_close(unit[1:](conv(images)), unit(images))
    torch.testing.assert_close(unit[:](images), unit(images))
    torch.testing.assert_close(copy.deepcopy(unit[1:])(conv(images)), unit(images))


class OwnSlices(Unit):
    def __init__(self, channels):
        super().__init__(nn.Conv2d(channels, 12, 3, 2, 1), nn.BatchNorm2d(12))

    def __getitem__(self, index):
        return nn.Sequential(*list(self._modules.values())[index])


def test_slices_of_a_class_of_its_own_stay_that_classs():
    model, _ = pooled(OwnSlices(8))
    assert list(model[0][:1]) == [model[0]._modules["0"]]


class Conv(nn.Module):
    """Folded as ultralytics does it, which puts ``forward_fuse`` in the place of ``forward``."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 12, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(12)

    def forward(self, x):
        return self.bn(self.conv(x)).relu()

    def forward_fuse(self, x):
        return self.conv(x).relu()


def test_a_forward_that_is_exchanged_pools_too():
    model, _ = pooled(Conv())
    model.eval()
    unit = model[0]
    images = torch.randn(2, 8, 16, 16)
    with torch.no_grad():
        output = model(images)
        unit.conv = nn.utils.fusion.fuse_conv_bn_eval(unit.conv, unit.bn)
        unit.forward = unit.forward_fuse
        torch.testing.assert_close(model(images), output)


def test_where_is_asked_of_the_convolutions():
    asked = []
    model, table = pooled(
        UNITS["RepVggBlock"](),
        nn.MaxPool2d(2),
        where=lambda path, module: asked.append(path) or path == "1",
    )
    assert set(asked) == {"0.conv_1x1.conv", "0.conv_kxk.conv", "1"}
    assert [row.path for row in table] == ["1"]
    assert model[0].conv_kxk.conv.stride == (2, 2)


def test_a_part_of_a_unit_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match=r"'0.conv_kxk.conv' .* part of '0', whose reparameterize"):
        pooled(UNITS["RepVggBlock"](), where=lambda path, module: path == "0.conv_kxk.conv")
    model, table = pooled(
        UNITS["RepVggBlock"](), nn.MaxPool2d(2), unsupported="skip",
        where=lambda path, module: path in ("0.conv_kxk.conv", "1"),
    )  # fmt: skip
    assert [row.path for row in table] == ["1"]
    assert [row.path for row in table.left] == ["0.conv_kxk.conv"]
    assert "timm.utils.reparameterize_model" in table.left[0].reason
    assert model.eval()(torch.randn(2, 8, 16, 16)).shape == (2, 12, 4, 4)


def test_the_where_of_a_refusal_keeps_the_units():
    def build(where):
        return pooled(UNITS["ConvNorm"](), nn.MaxPool2d(2, dilation=2), where=where)[1]

    with pytest.raises(ValueError, match=r"'1' .*dilation.* path in \('0.c',\)"):
        build(lambda path, module: True)
    assert [row.path for row in build(lambda path, module: path in ("0.c",))] == ["0"]
