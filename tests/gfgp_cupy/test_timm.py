"""gfgp_cupy.timm: the published networks in timm's registry."""

import copy
import importlib
import pickle
import sys

import pytest
import timm
import timm.data
import timm.loss
import timm.optim
import timm.utils
import torch
from torch import nn

import gfgp_cupy.timm
import models
from gfgp_cupy import GeneralizedMeanPool2d, GFGPMaxEntPool2d

FEW = ("resnet18", "resnext50_32x4d", "vgg16_bn")
NAMES = [f"{name}_gfgp" for name in gfgp_cupy.timm.NETWORKS]


def on_meta(name, **options):
    """Without its weights, which take their time to be drawn."""
    with torch.device("meta"):
        return timm.create_model(name, **options)


def test_names_are_registered():
    assert sorted(timm.list_models("*_gfgp")) == sorted(NAMES)
    assert timm.list_models("*_gfgp", pretrained=True) == []
    asked = {"resnet18", "resnet34", "resnet50", "resnet101", "resnext50_32x4d"}
    assert {f"{name}_gfgp" for name in (*asked, "vgg16_bn", "densenet169")} <= set(NAMES)
    assert all(callable(getattr(gfgp_cupy.timm, name)) for name in NAMES)


def published_name(name):
    """What ``models`` calls timm's ``name``."""
    return name.replace(name.split("_")[0], f"{name.split('_')[0]}orig") if "vgg" in name else name


@pytest.mark.parametrize(
    "name",
    [
        name if name in FEW else pytest.param(name, marks=pytest.mark.slow)
        for name in gfgp_cupy.timm.NETWORKS
    ],
)
def test_poolings_are_those_of_the_published_network(name):
    with torch.device("meta"):
        published = models.create_model(published_name(name))
    network = on_meta(f"{name}_gfgp")
    windows = [
        sorted((m.num_features, m.kernel_size, m.stride, m.padding) for m in model.modules()
               if isinstance(m, GFGPMaxEntPool2d))
        for model in (network, published)
    ]  # fmt: skip
    assert windows[0] == windows[1]
    assert not any(isinstance(m, (nn.MaxPool2d, nn.AvgPool2d)) for m in network.modules())


@pytest.mark.parametrize(
    "name, indices",
    [
        ("resnet50_gfgp", (0, 1, 4)),
        pytest.param("densenet121_gfgp", (0, 2), marks=pytest.mark.slow),
        ("vgg11_bn_gfgp", (0, 3)),
    ],
)
@pytest.mark.parametrize("feature_cls", ["list", "hook", "getter"])
def test_features_only(name, indices, feature_cls):
    model = on_meta(name, features_only=True, out_indices=indices, feature_cls=feature_cls).eval()
    features = model(torch.empty(1, 3, 64, 64, device="meta"))
    assert [64 // feature.shape[2] for feature in features] == model.feature_info.reduction()
    assert [feature.shape[1] for feature in features] == model.feature_info.channels()
    assert any(isinstance(module, GFGPMaxEntPool2d) for module in model.modules())


def test_features_through_fx():
    options = {"features_only": True, "out_indices": (1, 2), "feature_cls": "fx"}
    model = timm.create_model("resnet18_gfgp", **options).eval()
    features = model(torch.randn(1, 3, 32, 32))
    assert [32 // feature.shape[2] for feature in features] == model.feature_info.reduction()


def test_takes_what_timms_network_takes():
    model = timm.create_model(
        "resnet18_gfgp", pool="gem", in_chans=1, num_classes=0, global_pool="", output_stride=8,
        drop_rate=0.1, drop_path_rate=0.1, scriptable=None,
    )  # fmt: skip
    assert model.layer4[1].drop_path.drop_prob == pytest.approx(0.1)
    assert sum(isinstance(module, GeneralizedMeanPool2d) for module in model.modules()) == 3
    assert model.eval()(torch.rand(2, 1, 32, 32)).shape == (2, 512, 4, 4)
    with pytest.raises(ValueError, match="did you mean 'gem'"):
        timm.create_model("resnet18_gfgp", pool="gems")


def test_convolutions_start_as_timms_from_one_seed():
    torch.manual_seed(3)
    plain = timm.create_model("resnet18", num_classes=2).state_dict()
    torch.manual_seed(3)
    ours = timm.create_model("resnet18_gfgp", num_classes=2).state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in plain.items())
    assert len(ours) > len(plain)


def test_data_config_is_resolved():
    model = on_meta("resnext50_32x4d_gfgp")
    assert model.pretrained_cfg["architecture"] == "resnext50_32x4d_gfgp"
    config = timm.data.resolve_data_config({}, model=model)
    assert config["input_size"] == (3, 224, 224)
    assert (config["interpolation"], config["crop_pct"]) == ("bilinear", 0.875)
    assert config["mean"] == timm.data.IMAGENET_DEFAULT_MEAN


def test_trains_with_timms_parts(tmp_path):
    torch.manual_seed(0)
    model = timm.create_model("resnet18_gfgp", num_classes=2, drop_path_rate=0.05)
    optimizer = timm.optim.create_optimizer_v2(model, opt="sgd", lr=0.02, weight_decay=1e-4)
    averaged = timm.utils.ModelEmaV3(model, decay=0.5)
    images, labels = torch.randn(8, 3, 32, 32), torch.tensor([0, 1] * 4)
    images[labels == 1] += 1
    losses = []
    for _ in range(6):
        loss = timm.loss.LabelSmoothingCrossEntropy(0.0)(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        averaged.update(model)
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2

    saver = timm.utils.CheckpointSaver(
        model, optimizer, args=None, checkpoint_dir=str(tmp_path), recovery_dir=str(tmp_path)
    )
    saver.save_checkpoint(epoch=0, metric=1.0)
    checkpoint = tmp_path / "last.pth.tar"
    again = timm.create_model("resnet18_gfgp", num_classes=2, checkpoint_path=str(checkpoint))
    assert torch.equal(again.eval()(images), model.eval()(images))


@pytest.mark.parametrize(
    ("name", "beside", "poolings"),
    [
        ("resnet18", "conv1.weight", ("act1.pooling", "maxpool")),
        ("densenet121", "features.conv0.weight", ("features.norm0.act.pooling", "features.pool0")),
    ],
)
def test_learning_rates_decay_as_in_the_layer_before_a_pooling(name, beside, poolings):
    plain, model = on_meta(name), on_meta(f"{name}_gfgp")

    def scales(model):
        groups = timm.optim.param_groups_layer_decay(model, layer_decay=0.5)
        names = {parameter: name for name, parameter in model.named_parameters()}
        return {names[p]: group["lr_scale"] for group in groups for p in group["params"]}

    ours = scales(model)
    assert scales(plain).items() <= ours.items()
    heads = [name for name in ours if name.startswith(poolings)]
    assert len(heads) == 8 * len(poolings)
    assert all(ours[name] == ours[beside] for name in heads)
    assert scales(pickle.loads(pickle.dumps(model))) == ours
    assert scales(copy.deepcopy(model)) == ours
    assert model.group_matcher(coarse=True)["blocks"] == plain.group_matcher(coarse=True)["blocks"]


def test_saves_and_loads_as_timm_does_for_the_hub(tmp_path):
    model = timm.create_model("resnet18_gfgp", num_classes=3, pool="soft").eval()
    timm.models.save_for_hf(model, tmp_path)
    images = torch.randn(1, 3, 32, 32)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert torch.equal(again(images), model(images))
    features = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, features_only=True)
    assert torch.equal(features.eval()(images)[-1], model.forward_features(images))


def test_pretrained_without_weights_says_what_to_do():
    with pytest.raises(RuntimeError, match="no weights of 'resnet50_gfgp' are published") as error:
        timm.create_model("resnet50_gfgp", pretrained=True)
    assert "timm.create_model('resnet50', pretrained=True), strides='after_blocks'" in str(
        error.value
    )


def test_without_timm_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm.models", None)
    with pytest.raises(ModuleNotFoundError, match="pip install timm"):
        importlib.reload(gfgp_cupy.timm)
