"""strides="after_blocks": the published placement, in torchvision's and timm's networks."""

import copy
import pickle
import re
import warnings
from collections import OrderedDict
from functools import partial

import pytest
import timm
import torch
import torchvision
from timm.layers import convert_sync_batchnorm, freeze_batch_norm_2d
from timm.models.byobnet import BasicBlock as ByobBlock
from timm.models.byobnet import LayerFn
from timm.models.densenet import DenseNet
from timm.models.regnet import RegNet, RegNetCfg
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from timm.models.senet import SEBottleneck, SENet, SEResNetBlock
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.feature_extraction import create_feature_extractor

import models
from gfgp_cupy import GFGPMaxEntPool2d, replace_pooling
from gfgp_cupy.surgery.functional_calls import give_pooling_calls

SMALL = (2, 3, 32, 32)


def after_blocks(model, **options):
    return replace_pooling(model, strides="after_blocks", sample_shape=SMALL, **options)


def tiny_resnet(block=BasicBlock, **options):
    """timm's ResNet, narrow, a block in each stage."""
    return ResNet(block, (1, 1, 1, 1), channels=(8, 16, 24, 32), num_classes=4, **options)


def tiny_regnet(**options):
    return RegNet(RegNetCfg(depth=10, w0=8, wa=20, wm=2.5, group_size=8, **options), num_classes=4)


def sizes(model, images):
    """Height and width of what each module returns, by path."""
    found = {}

    def note(path):
        def hook(module, args, output):
            if isinstance(output, torch.Tensor):
                found[path] = output.shape[2:]

        return hook

    handles = [m.register_forward_hook(note(path)) for path, m in model.named_modules()]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return found


def as_published(state):
    """torchvision's tensors after surgery, by the names of ``models``."""
    names = {"relu.pooling.": "pool1.", "maxpool.": "pool."}
    return {
        next((new + key[len(old) :] for old, new in names.items() if key.startswith(old)), key): v
        for key, v in state.items()
    }


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet50", "resnext50_32x4d")),
    ],
)
def test_is_the_published_network(name):
    """Logits and gradients are those of create_model with the same weights."""
    torch.manual_seed(0)
    ours = torchvision.models.get_model(name, weights=None, num_classes=4)
    weights = {key: tensor.clone() for key, tensor in ours.state_dict().items()}
    after_blocks(ours)
    published = models.create_model(name, num_classes=4)
    published.load_state_dict(as_published(ours.state_dict()))
    assert all(torch.equal(ours.state_dict()[key], tensor) for key, tensor in weights.items())

    images = torch.randn(2, 3, 32, 32)
    for training in (True, False):
        logits = [model.train(training)(images) for model in (ours, published)]
        torch.testing.assert_close(*logits)
    for model in (ours, published):
        model.train()(images).square().sum().backward()
    gradients = as_published({key: p.grad for key, p in ours.named_parameters()})
    for key, parameter in published.named_parameters():
        torch.testing.assert_close(gradients[key], parameter.grad, rtol=1e-3, atol=1e-4)
        assert parameter.grad.any() or "pool" in key


SMALL_NETWORKS = {
    "plain": lambda: tiny_resnet(),
    "bottlenecks": lambda: tiny_resnet(Bottleneck, cardinality=2, base_width=32),
    "average beside": lambda: tiny_resnet(
        Bottleneck, stem_width=8, stem_type="deep", avg_down=True, replace_stem_pool=True
    ),
    "average as anti-aliasing": lambda: tiny_resnet(aa_layer=nn.AvgPool2d),
    "attention": lambda: tiny_resnet(block_args={"attn_layer": "se"}),
    "senet": lambda: SENet(
        SEBottleneck, (1, 1, 1, 1), 2, 16, inplanes=16, input_3x3=True,
        downsample_kernel_size=3, downsample_padding=1, num_classes=4,
    ),
    "legacy seresnet": lambda: SENet(SEResNetBlock, (1, 1, 1, 1), 1, 16, num_classes=4),
    "timm regnet": lambda: tiny_regnet(se_ratio=0.25),
    "timm densenet": lambda: DenseNet(8, (1, 1, 1, 1), num_classes=4),
    "timm densenet, deep stem": lambda: DenseNet(8, (1, 1), num_classes=4, stem_type="deep"),
    "timm densenet of another activation": lambda: DenseNet(8, (1, 1), act_layer="gelu"),
    "torchvision regnet": lambda: torchvision.models.regnet_y_400mf(num_classes=4),
    "torchvision densenet": lambda: torchvision.models.DenseNet(8, (1, 1, 1, 1), 8, num_classes=4),
    "torchvision wide": lambda: torchvision.models.ResNet(
        torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=4, width_per_group=128
    ),
}  # fmt: skip


NORM_PARTS = {"1", "bn", "bn1", "norm0", "drop", "act"}


@pytest.mark.parametrize("name", SMALL_NETWORKS)
def test_only_what_is_inside_a_block_or_stem_is_larger(name):
    torch.manual_seed(0)
    model = SMALL_NETWORKS[name]().eval()
    names = set(model.state_dict())
    # timm's average as anti-aliasing and a strided convolution beside it agree in even sizes alone.
    images = torch.randn(2, 3, *((32, 32) if "anti-aliasing" in name else (45, 39)))
    before = sizes(model, images)
    table = after_blocks(model)
    assert not any(max(m.stride) > 1 for m in model.modules() if isinstance(m, nn.Conv2d))
    assert names <= set(model.state_dict())
    after = sizes(model, images)
    larger = {path for path, size in before.items() if path in after and after[path] != size}
    blocks = tuple(f"{row.path}." for row in table if not row.was.startswith("Conv2d"))
    outside = {path for path in larger if not path.startswith(blocks)}
    stems = [row.path for row in table if row.was.startswith("Conv2d")]
    # A stem's convolution and norm, and timm's norm has parts of its own.
    assert stems == [path for path in before if path in outside and path in stems]
    assert all(path.split(".")[-1] in NORM_PARTS for path in outside - set(stems))


@pytest.mark.parametrize("name", ["average beside", "legacy seresnet", "timm regnet"])
def test_every_head_learns(name):
    torch.manual_seed(0)
    model = SMALL_NETWORKS[name]()
    table = after_blocks(model)
    model(torch.randn(4, 3, 64, 64)).square().sum().backward()
    heads = [m for m in model.modules() if isinstance(m, GFGPMaxEntPool2d)]
    assert len(heads) == len(table)
    for pooling in heads:
        assert pooling.head.conv2.weight.grad.any()


def test_timms_feature_sizes_stay():
    model = tiny_resnet()
    after_blocks(model)
    model.eval()
    features = model.forward_intermediates(torch.randn(1, 3, 64, 64), intermediates_only=True)
    told = [info["reduction"] for info in model.feature_info]
    assert [64 // feature.shape[2] for feature in features] == told == [2, 4, 8, 16, 32]


@pytest.mark.parametrize("name", ["resnet10t", "regnetx_002"])
def test_timms_features_only(name):
    model = timm.create_model(name, features_only=True, out_indices=(0, 1, 2)).eval()
    after_blocks(model)
    features = model(torch.randn(1, 3, 64, 64))
    assert [64 // feature.shape[2] for feature in features] == model.feature_info.reduction()
    assert [feature.shape[1] for feature in features] == model.feature_info.channels()


def test_torchvisions_feature_extractor():
    model = torchvision.models.resnet18().eval()
    after_blocks(model)
    # The last is inside a block, where its stride was.
    nodes = {"relu": "2", "layer1": "4", "layer2.0": "8", "layer2.0.relu_1": "inside"}
    features = create_feature_extractor(model, nodes)(torch.randn(1, 3, 64, 64))
    reductions = {name: 64 // map.shape[2] for name, map in features.items()}
    assert reductions == {"2": 2, "4": 4, "8": 8, "inside": 4}


def test_layers_run_one_by_one():
    """As torchvision's detection and segmentation do with their backbones."""
    whole = torchvision.models.resnet18()
    layers = {"relu": "2", "layer1": "4", "layer3": "16"}
    backbone = IntermediateLayerGetter(whole, layers).eval()
    after_blocks(backbone)
    features = backbone(torch.randn(1, 3, 64, 64))
    assert {name: 64 // map.shape[2] for name, map in features.items()} == {
        "2": 2,
        "4": 4,
        "16": 16,
    }


@pytest.mark.parametrize("make_anew", [convert_sync_batchnorm, freeze_batch_norm_2d])
@pytest.mark.parametrize("name", [*(n for n in SMALL_NETWORKS if n.startswith("timm")), "plain"])
def test_norms_that_are_made_anew(name, make_anew):
    """By their class, whatever they have been given."""
    torch.manual_seed(0)
    model = SMALL_NETWORKS[name]().eval()
    after_blocks(model)
    images = torch.randn(SMALL)
    before, expected = sizes(model, images), model(images)
    anew = make_anew(model)
    assert any("Sync" in type(m).__name__ or "Frozen" in type(m).__name__ for m in anew.modules())
    after = sizes(anew, images)
    assert {path: after[path] for path in before} == before
    torch.testing.assert_close(anew(images), expected)


def test_dilated_stages_are_not_strided():
    model = torchvision.models.ResNet(
        torchvision.models.resnet.Bottleneck, [1, 1, 1, 1],
        replace_stride_with_dilation=[False, True, True],
    )  # fmt: skip
    assert [row.path for row in after_blocks(model)] == ["conv1", "maxpool", "layer2.0"]
    dilated = tiny_resnet(output_stride=8, avg_down=True)
    assert [row.path for row in after_blocks(dilated)] == ["conv1", "maxpool", "layer2.0"]


def test_copies_and_pickles():
    torch.manual_seed(0)
    model = tiny_resnet().eval()
    after_blocks(model)
    block = model.layer2[0]
    assert isinstance(block, BasicBlock)
    images = torch.randn(SMALL)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(other.layer2[0]) is type(block)
        assert torch.equal(other(images), model(images))
        other.layer2[0].pooling.head.conv1.weight.data.add_(1)
        assert not torch.equal(
            other.layer2[0].pooling.head.conv1.weight, block.pooling.head.conv1.weight
        )


def test_copies_and_pickles_whose_calls_are_replaced_too():
    """The two classes that are made while it runs, one of the other."""

    model = nn.Sequential(OrderedDict(block=BasicBlock(8, 8, stride=2)))
    model.block.downsample = nn.Conv2d(8, 8, 1, stride=2)
    images = torch.randn(2, 8, 8, 8)
    for first in ("calls", "stride"):
        twice = copy.deepcopy(model).eval()
        for what in (first, "stride" if first == "calls" else "calls"):
            if what == "calls":
                give_pooling_calls(twice.block, "block", [])
            else:
                replace_pooling(twice, "soft", strides="after_blocks", sample_shape=images.shape)
        for other in (copy.deepcopy(twice), pickle.loads(pickle.dumps(twice))):
            assert type(other.block) is type(twice.block)
            assert torch.equal(other(images), twice(images))


def test_a_new_instance_of_a_pooled_class_has_no_pooling():
    model = nn.Sequential(BasicBlock(8, 8, stride=2, downsample=nn.Conv2d(8, 8, 1, stride=2)))
    replace_pooling(model, strides="after_blocks", sample_shape=(2, 8, 8, 8))
    assert type(model[0])(8, 8)(torch.randn(2, 8, 8, 8)).shape == (2, 8, 8, 8)
    assert model(torch.randn(2, 8, 8, 8)).shape == (2, 8, 4, 4)


def test_keeps_hooks_and_modes():
    model = tiny_resnet()
    seen = []
    model.layer2[0].register_forward_hook(lambda _, args, output: seen.append(output.shape[2:]))
    model.layer2[0].eval()
    after_blocks(model)
    assert not model.layer2[0].pooling.training and model.layer3[0].pooling.training
    model(torch.randn(SMALL))
    assert seen == [(4, 4)]


def test_where_leaves_blocks_and_stems_out():
    model = tiny_resnet()
    asked = {}
    table = after_blocks(
        model, where=lambda path, module: asked.setdefault(path, module) and path == "layer3.0"
    )
    assert [row.path for row in table] == ["layer3.0"]
    assert {"conv1", "layer2.0", "layer3.0", "layer4.0", "maxpool"} == set(asked)
    assert model.conv1.stride == model.layer2[0].conv1.stride == (2, 2)


@pytest.mark.parametrize(
    "make, places, reason",
    [
        (
            lambda: timm.create_model("resnetblur18"),
            ["layer2.0", "layer3.0", "layer4.0"],
            "strides by something other than one convolution or AvgPool2d in each branch",
        ),
        (
            lambda: tiny_regnet(linear_out=True),
            ["s1.b1", "s2.b1", "s3.b1", "s4.b1"],
            "has no ReLU behind its sum",
        ),
        (
            lambda: torchvision.models.mobilenet_v2(width_mult=0.25),
            [
                f"features.{i}"
                for i in ("0.0", "2.conv.1.0", "4.conv.1.0", "7.conv.1.0", "14.conv.1.0")
            ],
            "strides in a block whose last ReLU is not known",
        ),
    ],
    ids=["resnetblur18", "linear regnet", "mobilenet_v2"],
)
def test_strides_without_a_known_place_are_refused(make, places, reason):
    model = make()
    names = list(model.state_dict())
    with pytest.raises(ValueError, match="strided_convs=True, instead, pools") as error:
        after_blocks(model)
    message = str(error.value)
    assert reason in message
    assert all(repr(path) in message for path in places)
    assert list(model.state_dict()) == names
    # Both ways out work.
    leave_out = eval(re.search(r"lambda path, module: path not in \(.*?\)", message)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there may be nothing else to replace
        after_blocks(copy.deepcopy(model), where=leave_out)
        skipped = after_blocks(model, unsupported="skip")
    assert [row.path for row in skipped.left if reason in row.reason] == places


def test_few_channels_are_left():
    model = tiny_resnet(output_stride=8)
    table = after_blocks(model, min_channels=32)
    assert [row.path for row in table] == ["conv1", "maxpool"]
    assert table.left[0].path == "layer2.0"
    assert table.left[0].was == "BasicBlock(stride 2)"
    assert model.layer2[0].conv1.stride == (2, 2)


def test_a_patched_forward_is_refused():
    model = tiny_resnet()
    model.layer3[0].forward = partial(BasicBlock.forward, model.layer3[0])
    with pytest.raises(ValueError, match=r"'layer3.0' \(.*: has a forward of its own"):
        after_blocks(model)


def test_a_subclass_with_the_same_forward_is_known():
    class Mine(ByobBlock):
        """Of a user."""

    model = nn.Sequential(Mine(8, 16, stride=2, downsample="conv1x1", layers=LayerFn()))
    assert [row.was for row in after_blocks(model)] == ["Mine(stride 2)"]
    assert model.eval()(torch.randn(1, 8, 8, 8)).shape == (1, 16, 4, 4)


class OwnForward(torchvision.models.ResNet):
    """Has torchvision's stem and blocks."""

    def __init__(self, forward):
        super().__init__(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1])
        del self.avgpool, self.fc
        self.prelu, self.own = nn.PReLU(), forward

    def forward(self, x):
        return self.own(self, self.bn1(self.conv1(x)))

    def blocks(self, x):
        return self.layer4(self.layer3(self.layer2(self.layer1(self.maxpool(x)))))


def test_a_subclass_whose_forward_runs_the_stem_likewise_is_known():
    model = OwnForward(lambda self, x: self.blocks(self.relu(x)))
    assert after_blocks(model)[0].path == "conv1"
    assert model.eval()(torch.randn(SMALL)).shape == (2, 512, 1, 1)


OTHERWISE = {
    "unused": lambda self, x: self.blocks(self.prelu(x)),
    "used again": lambda self, x: self.relu(self.blocks(self.relu(x)).mean((2, 3))),
    "behind the pooling": lambda self, x: self.layer1(self.relu(self.maxpool(x))),
}


@pytest.mark.parametrize("forward", OTHERWISE.values(), ids=OTHERWISE)
def test_a_subclass_that_uses_the_stem_otherwise_is_refused(forward):
    model = OwnForward(forward).eval()
    before = sizes(model, torch.randn(SMALL))
    with pytest.raises(ValueError, match=r"'conv1' \(.*a stem that 'relu' ends") as error:
        after_blocks(model)
    for way_out in ("path != 'conv1'", "unsupported='skip'", "strided_convs=True"):
        assert way_out in str(error.value)
    skipped = copy.deepcopy(model)
    table = after_blocks(skipped, unsupported="skip")
    assert [row.path for row in table.left if "stem" in row.reason] == ["conv1"]
    replace_pooling(model, strided_convs=True, sample_shape=SMALL)
    for changed in (skipped, model):
        after = sizes(changed, torch.randn(SMALL))
        assert all(after[path] == before[path] for path in ("maxpool", "layer1", "layer1.0"))


class Sorted(nn.Module):
    """Needs data."""

    def forward(self, x):
        return x[x.mean((1, 2, 3)).argsort()][: int(x.sum() > 0) + 1]


def test_a_stem_of_a_subclass_that_is_not_seen_is_refused():
    model = nn.Sequential(Sorted(), OwnForward(lambda self, x: self.blocks(self.relu(x))))
    with pytest.raises(ValueError, match=r"'1.conv1' .*not seen.*DataDependent.*the part of it"):
        after_blocks(model)
    assert after_blocks(model[1])[0].path == "conv1"


@pytest.mark.parametrize("create", [torchvision.models.resnet18, tiny_resnet])
def test_a_stem_of_a_library_moves_with_the_blocks_unseen(create):
    model = nn.Sequential(Sorted(), create())
    changes = after_blocks(model, unsupported="skip")
    stages = [f"1.layer{stage}.0" for stage in (2, 3, 4)]
    assert [change.path for change in changes] == ["1.conv1", *stages]
    assert model[1].conv1.stride == (1, 1)


def test_a_stem_in_an_unseen_forward_of_its_own_is_refused():
    model = nn.Sequential(Sorted(), tiny_resnet())
    model[1].forward = partial(ResNet.forward, model[1])
    with pytest.raises(ValueError, match=r"'1.conv1' .*not seen"):
        after_blocks(model)


def test_arguments():
    with pytest.raises(ValueError, match="choose one of them"):
        after_blocks(tiny_resnet(), strided_convs=True)
    with pytest.raises(
        ValueError, match="unknown strides 'after_block': did you mean 'after_blocks'"
    ):
        replace_pooling(tiny_resnet(), strides="after_block")
