"""The published networks, against what is known of the published implementation.

``data/published_state_dicts.json.gz`` holds the names and shapes of every tensor of its 34
networks under its four pooling types. ``data/published_logits.json`` holds every 125th of the
1000 logits that some of them give in evaluation mode and in float64, their CUDA pooling
replaced by its formula, for the tensors of ``fill`` and the images of ``images``
(https://github.com/tk1980/GFGP, run once).
"""

import copy
import functools
import gzip
import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from models import create_model, list_models
from models.pooling import create_pooling
from models.state_dict import published_state_dict
from tests.support.networks_without_memory import without_memory

DATA = Path(__file__).parent / "data"
with gzip.open(DATA / "published_state_dicts.json.gz") as file:
    PUBLISHED_SHAPES: dict[str, dict[str, list[int]]] = json.load(file)
PUBLISHED_LOGITS: dict[str, list] = json.loads((DATA / "published_logits.json").read_text())

POOL_TYPES = ("max", "avg", "skip", "max_ent")
HEAD_NAMES = {"conv1": "1", "norm1": "2", "conv2": "4", "norm2": "5"}


def published_name(name: str) -> str:
    for own, published in HEAD_NAMES.items():
        name = name.replace(f".head.{own}.", f".ToParam.{published}.")
    return name


def fill(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Tensors that leave the logits of a size around 1, the same on every machine."""
    random = np.random.RandomState(0)
    tensors = {}
    for name in sorted(shapes):
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(0)
            continue
        uniform = torch.from_numpy(random.uniform(-1, 1, size=shapes[name]))
        if uniform.dim() > 1:
            tensors[name] = uniform * math.sqrt(3 / uniform[0].numel())
        elif name.endswith(("running_var", "weight")):
            tensors[name] = 1 + 0.5 * uniform
        else:
            tensors[name] = 0.5 * uniform
    return tensors


def images(height: int = 40, width: int = 32) -> torch.Tensor:
    uniform = np.random.RandomState(1).uniform(-1, 1, size=(2, 3, height, width))
    return torch.from_numpy(uniform)


def empty_model(name: str, pool: str, num_classes: int = 1000) -> nn.Module:
    """A float64 network in evaluation mode, to be loaded."""
    with without_memory():
        model = create_model(name, pool, num_classes)
    return model.double().to_empty(device="cpu").eval()


@functools.lru_cache(maxsize=2)  # of neighbouring tests
def filled_tensors(name: str, pool: str) -> dict[str, torch.Tensor]:
    with without_memory():
        shapes = create_model(name, pool, num_classes=10).state_dict()
    return fill({key: list(tensor.shape) for key, tensor in shapes.items()})


def filled_model(name: str, pool: str) -> nn.Module:
    model = empty_model(name, pool, num_classes=10)
    model.load_state_dict(filled_tensors(name, pool))
    return model


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(images())


# Names, shapes and sizes


def test_list_models():
    assert list_models() == sorted({key.split("/")[0] for key in PUBLISHED_SHAPES})
    assert len(list_models()) == 34


def test_every_network_under_every_pooling_is_known():
    assert set(PUBLISHED_SHAPES) == {f"{n}/{p}" for n in list_models() for p in POOL_TYPES}


@pytest.mark.parametrize("key", PUBLISHED_SHAPES)
def test_state_dict_agrees_with_the_published_one(key):
    with without_memory():
        model = create_model(*key.split("/"))
    own = {published_name(name): list(t.shape) for name, t in model.state_dict().items()}
    published = {name: list(t.shape) for name, t in published_state_dict(model).items()}
    for shapes in (own, published):
        assert shapes == PUBLISHED_SHAPES[key]
        assert list(shapes) == list(PUBLISHED_SHAPES[key])


@pytest.mark.parametrize(
    ("name", "pool", "parameters"),
    [
        ("resnet50", "skip", 25_557_032),
        ("resnet50", "max_ent", 31_086_952),
        ("resnext50_32x4d", "max_ent", 30_558_824),
        ("resnetp50", "max_ent", 31_082_568),
        ("vgg16bow_bn", "max_ent", 38_071_560),
        ("vgg16orig_bn", "max", 138_382_376),
        ("vgg16orig_bn", "max_ent", 138_999_304),
        ("densenet169", "avg", 14_151_528),
        ("densenet169", "max_ent", 14_656_424),
    ],
)
def test_number_of_parameters(name, pool, parameters):
    with without_memory():
        model = create_model(name, pool)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_pooling_is_max_ent_and_classes_are_1000_by_default():
    with without_memory():
        shapes = {k: v.shape for k, v in create_model("resnet18").state_dict().items()}
        expected = create_model("resnet18", pool="max_ent", num_classes=1000).state_dict()
    assert shapes == {k: v.shape for k, v in expected.items()}


# What the networks compute


@pytest.mark.parametrize("key", PUBLISHED_LOGITS)
def test_logits_are_the_published_ones(key):
    model = empty_model(*key.split("/"))
    model.load_state_dict(fill(PUBLISHED_SHAPES[key]))
    expected = torch.tensor(PUBLISHED_LOGITS[key], dtype=torch.float64)
    torch.testing.assert_close(logits(model)[:, ::125], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "pool"),
    [
        *(
            (name, pool)
            for name in ("resnet18", "resnetp18", "densenet121", "vgg11bow_bn")
            for pool in POOL_TYPES
        ),
        ("vgg11orig", "max_ent"),
    ],
)
def test_small_images_give_one_row_of_logits_each(name, pool):
    model = create_model(name, pool, num_classes=7)
    output = model(torch.rand(2, 3, 32, 32))
    assert output.shape == (2, 7)
    assert output.isfinite().all()


@pytest.mark.parametrize("name", ["resnet18", "resnetp18", "densenet121", "vgg11bow_bn"])
def test_backward_reaches_every_parameter(name):
    torch.manual_seed(0)
    model = create_model(name, "max_ent", num_classes=10)
    nn.functional.cross_entropy(model(torch.rand(4, 3, 32, 32)), torch.arange(4)).backward()
    *_, last_linear = (m for m in model.modules() if isinstance(m, nn.Linear))
    for module_name, module in model.named_modules():
        # A BatchNorm takes away the bias before it, whose gradient is rounding alone.
        normalised = isinstance(module, nn.Conv2d | nn.Linear) and module is not last_linear
        for parameter_name, parameter in module.named_parameters(recurse=False):
            full_name = f"{module_name}.{parameter_name}"
            assert parameter.grad is not None, full_name
            assert parameter.grad.isfinite().all(), full_name
            assert parameter.grad.any() or (normalised and parameter_name == "bias"), full_name


def test_resnet50_skip_is_torchvisions():
    model = filled_model("resnet50", "skip")
    reference = torchvision.models.resnet50(weights=None, num_classes=10).double().eval()
    reference.load_state_dict(model.state_dict())
    torch.testing.assert_close(logits(model), logits(reference), rtol=0, atol=1e-9)


def test_densenet121_avg_is_torchvisions_but_for_the_transitions_second_norm():
    model = filled_model("densenet121", "avg")
    reference = torchvision.models.densenet121(weights=None, num_classes=10).double().eval()
    state_dict = model.state_dict()
    norm2 = {name for name in state_dict if "transition" in name and ".norm2." in name}
    assert len(norm2) == 3 * 5
    reference.load_state_dict({k: v for k, v in state_dict.items() if k not in norm2})
    assert not torch.allclose(logits(model), logits(reference))
    for i in (1, 2, 3):
        transition = model.get_submodule(f"features.transition{i}")
        transition.norm2 = transition.relu2 = nn.Identity()
    torch.testing.assert_close(logits(model), logits(reference), rtol=0, atol=1e-9)


def test_vgg11orig_max_is_torchvisions_without_dropout():
    torch.manual_seed(0)
    with without_memory():  # 130 million weights that are drawn once only
        model = create_model("vgg11orig", "max", num_classes=10).eval()
        reference = torchvision.models.vgg11(weights=None, init_weights=False, num_classes=10)
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.03)  # the initial weights let the signal vanish
    reference.classifier = nn.Sequential(
        *(layer for layer in reference.classifier if not isinstance(layer, nn.Dropout))
    )
    reference.load_state_dict(model.state_dict(), assign=True)
    image = images(height=240, width=256)[:1].float()  # a 7×8 map, averaged to 7×7
    with torch.no_grad():
        output, expected = model(image), reference(image)
    assert expected.std() > 1e-3
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-6)


# Initial weights


def assert_normal(tensor: torch.Tensor, std: float) -> None:
    # Five standard errors of the standard deviation, of the mean and of the tails' share.
    error = 5 / math.sqrt(tensor.numel())
    assert abs(tensor.std().item() / std - 1) < error / math.sqrt(2)
    assert abs(tensor.mean().item() / std) < error
    assert abs((tensor.abs() > 2 * std).double().mean().item() - 0.0455) < error * 0.21


def assert_norms_are_identities(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


@pytest.mark.parametrize("name", ["resnet18", "resnetp18"])
def test_resnet_convolutions_start_kaiming_normal_by_fan_out(name):
    torch.manual_seed(0)
    model = create_model(name, "max_ent", num_classes=10)
    for conv in convolutions(model):
        assert_normal(conv.weight, math.sqrt(2 / conv.weight[:, 0].numel()))
    assert_norms_are_identities(model)


def test_densenet_convolutions_start_kaiming_normal_by_fan_in():
    torch.manual_seed(0)
    model = create_model("densenet121", "max_ent", num_classes=10)
    for conv in convolutions(model):
        assert_normal(conv.weight, math.sqrt(2 / conv.weight[0].numel()))
    assert (model.classifier.bias == 0).all()
    assert_norms_are_identities(model)


def test_vgg_convolutions_and_linear_layers_start_normal():
    torch.manual_seed(0)
    model = create_model("vgg11bow_bn", "max_ent", num_classes=10)
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    for layer in [*convolutions(model), *linear]:
        assert_normal(layer.weight, 0.01)
        assert (layer.bias == 0).all()
    assert_norms_are_identities(model)


# Loading


def under_data_parallel(name: str) -> str:
    return f"module.{name}"


def under_data_parallel_features(name: str) -> str:
    return name.replace("features.", "features.module.", 1)


@pytest.mark.parametrize(
    ("name", "naming", "wrapping"),
    [
        ("resnetp18", published_name, str),
        ("resnetp18", published_name, under_data_parallel),
        ("resnetp18", str, under_data_parallel),
        ("densenet121", published_name, under_data_parallel_features),
        ("densenet121", str, under_data_parallel),
        ("vgg11bow_bn", published_name, under_data_parallel_features),
    ],
)
def test_round_trip_under_other_names(name, naming, wrapping):
    model = filled_model(name, "max_ent")
    state_dict = {wrapping(naming(key)): t for key, t in model.state_dict().items()}
    loaded = empty_model(name, "max_ent", num_classes=10)
    loaded.load_state_dict(state_dict)
    torch.testing.assert_close(dict(loaded.state_dict()), dict(model.state_dict()), rtol=0, atol=0)
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=1e-12)


@pytest.mark.parametrize("part", ["", "layer3"])
def test_round_trip_through_data_parallel(part):
    model = filled_model("resnet18", "max_ent")
    wrapped = copy.deepcopy(model)
    if part:
        setattr(wrapped, part, nn.DataParallel(getattr(wrapped, part)))
    else:
        wrapped = nn.DataParallel(wrapped)
    expected = {key: t.clone() for key, t in model.state_dict().items()}
    saved = {key: t.clone() for key, t in wrapped.state_dict().items()}
    assert saved.keys() != expected.keys()
    for target in (wrapped, model):
        for parameter in target.parameters():
            nn.init.zeros_(parameter)
        target.load_state_dict(saved)
        loaded = zip(target.state_dict().values(), expected.values(), strict=True)
        assert all(torch.equal(tensor, original) for tensor, original in loaded)


def test_averaged_weights_load_as_they_are():
    model = filled_model("resnet18", "max_ent")
    averaged = torch.optim.swa_utils.AveragedModel(model).state_dict()
    assert "n_averaged" in averaged
    loaded = empty_model("resnet18", "max_ent", num_classes=10)
    loaded.load_state_dict(averaged)
    torch.testing.assert_close(dict(loaded.state_dict()), dict(model.state_dict()), rtol=0, atol=0)
    torch.optim.swa_utils.AveragedModel(loaded).load_state_dict(averaged)
    with pytest.raises(RuntimeError, match="n_averaged"):
        loaded.load_state_dict({"n_averaged": torch.tensor(1), **model.state_dict()})


@pytest.fixture
def model_and_published() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    model = filled_model("resnet18", "max_ent")
    return model, {f"module.{published_name(k)}": t for k, t in model.state_dict().items()}


@pytest.mark.parametrize(
    ("key", "own_key"),
    [
        ("module.conv1.weight", "conv1.weight"),
        ("module.pool.ToParam.4.bias", "pool.head.conv2.bias"),
        ("module.layer2.0.pooling.ToParam.5.running_var", "layer2.0.pooling.head.norm2"),
    ],
)
def test_a_missing_tensor_is_an_error(model_and_published, key, own_key):
    model, state_dict = model_and_published
    del state_dict[key]
    with pytest.raises(RuntimeError, match=rf"Missing key.*{own_key}"):
        model.load_state_dict(state_dict)


@pytest.mark.parametrize(
    "key",
    [
        "conv2.weight",
        "module.layer1.0.pooling.ToParam.1.weight",
        "module.pool.ToParam.3.weight",
        "module",
    ],
)
def test_an_unexpected_tensor_is_an_error(model_and_published, key):
    model, state_dict = model_and_published
    state_dict[key] = torch.zeros(1)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        model.load_state_dict(state_dict)


def test_one_tensor_under_two_names_is_an_error(model_and_published):
    model, state_dict = model_and_published
    state_dict["conv1.weight"] = torch.zeros_like(model.conv1.weight)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*module\.conv1\.weight"):
        model.load_state_dict(state_dict)


def test_loading_leaves_the_callers_state_dict_alone(model_and_published):
    model, state_dict = model_and_published
    keys = list(state_dict)
    model.load_state_dict(state_dict)
    assert list(state_dict) == keys


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]
)
@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_copies_compute_and_load_by_themselves(name, duplicate):
    model = filled_model(name, "max_ent")
    expected = logits(model)
    twin = duplicate(model)
    assert torch.equal(logits(twin), expected)
    zeros = {k: torch.zeros_like(t) for k, t in model.state_dict().items()}
    twin.load_state_dict({f"module.{published_name(k)}": t for k, t in zeros.items()})
    assert not any(parameter.any() for parameter in twin.parameters())
    assert torch.equal(logits(model), expected)


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet51"}, r"name 'resnet51'.*'resnet50'"),
        ({"name": "VGG16"}, r"name 'VGG16'.*vgg16orig"),
        ({"name": None}, r"name None"),
        ({"name": "resnet18", "pool": "maxent"}, r"pool 'maxent'.*'max_ent'"),
        ({"name": "vgg11bow", "pool": "median"}, r"pool 'median'.*max, avg, skip, max_ent"),
        ({"name": "densenet121", "pool": None}, r"pool None"),
        ({"name": "resnet18", "num_classes": 0}, r"num_classes.*0"),
        ({"name": "resnet18", "num_classes": -3}, r"num_classes.*-3"),
    ],
)
def test_bad_values_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model(**arguments)


@pytest.mark.parametrize("num_classes", [2.0, "10", None, True])
def test_num_classes_must_be_an_int(num_classes):
    with pytest.raises(TypeError, match=f"num_classes.*{num_classes!r}"):
        create_model("resnet18", num_classes=num_classes)


def test_unknown_pooling_type_is_named():
    with pytest.raises(ValueError, match=r"pool 'maxent'.*'max_ent'"):
        create_pooling("maxent", num_features=8, kernel_size=2, stride=2)
