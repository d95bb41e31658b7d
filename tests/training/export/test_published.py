"""Checkpoints for the published code: its names, shapes, order and values, and its optimizer.

``tests/models/data/published_state_dicts.json.gz`` holds the names and shapes of every tensor of
the published networks, in their order (https://github.com/tk1980/GFGP).
"""

import argparse
import gzip
import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from models import create_model
from tests.support.paths import REPOSITORY
from train_imagenet import parse_settings
from training.checkpoints.format import load_checkpoint, load_model, save_checkpoint
from training.checkpoints.optimizer_state import load_optimizer, optimizer_state
from training.errors import UserError
from training.export.command import export

with gzip.open(REPOSITORY / "tests/models/data/published_state_dicts.json.gz") as file:
    PUBLISHED_SHAPES: dict[str, dict[str, list[int]]] = json.load(file)

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def published_content(key):
    """What the published code saves of a network after two epochs, with random values."""
    arch, pool = key.split("/")
    generator = torch.Generator().manual_seed(0)
    shapes = PUBLISHED_SHAPES[key]
    state_dict = {
        name: torch.tensor(7)
        if name.endswith("tracked")
        else torch.rand(shape, generator=generator)
        for name, shape in shapes.items()
    }
    parameters = [name for name in shapes if not name.endswith(STATISTICS)]
    optimizer = {
        "state": {
            number: {"momentum_buffer": torch.rand(shapes[name], generator=generator)}
            for number, name in enumerate(parameters)
        },
        "param_groups": [
            {
                **{"lr": 0.01, "momentum": 0.9, "dampening": 0, "weight_decay": 1e-4},
                **{"nesterov": False, "params": list(range(len(parameters)))},
            }
        ],
    }
    names = ("train_err1", "train_err5", "train_loss", "test_err1", "test_err5", "test_loss")
    return {
        "epoch": 2,
        "arch": arch,
        "state_dict": state_dict,
        "stats": {name: [90.0 + number, 1 / 3] for number, name in enumerate(names)},
        "optimizer": optimizer,
        "args": argparse.Namespace(arch=arch, pool=pool, lrs=[0.1, 0.01]),
    }


def exported(content, folder, **options):
    """The published checkpoint that is made of a file with ``content``, and what is printed."""
    torch.save(content, folder / "checkpoint.pth.tar")
    options = {"format": "published", "pool": None, "image_size": None, **options}
    said = export(str(folder / "checkpoint.pth.tar"), str(folder / "exported.pth.tar"), **options)
    return torch.load(folder / "exported.pth.tar", weights_only=False), said


def assert_same_tensors(found, expected):
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize(
    "key", ["resnet18/max_ent", "resnetp18/max_ent", "densenet121/max_ent", "resnet18/skip"]
)
def test_published_file_comes_back_bit_for_bit(tmp_path, key):
    content = published_content(key)
    found, said = exported(content, tmp_path)
    assert_same_tensors(found["state_dict"], content["state_dict"])
    assert (found["epoch"], found["arch"]) == (2, content["arch"])
    assert found["stats"] == content["stats"]
    assert found["optimizer"]["param_groups"] == content["optimizer"]["param_groups"]
    states, expected = found["optimizer"]["state"], content["optimizer"]["state"]
    assert list(states) == list(expected)
    for number, state in expected.items():
        assert_same_tensors(states[number], state)
    assert set(found) == set(content)
    assert isinstance(found["args"], argparse.Namespace)
    assert (found["args"].arch, found["args"].pool) == tuple(key.split("/"))
    assert found["args"].classes == tuple(f"class {number}" for number in range(1000))
    assert "with the optimizer's state" in said


def test_wrappers_names_are_left_out(tmp_path):
    """As in files of data-parallel runs; the published code leaves them out as it loads."""
    content = published_content("resnetp18/max_ent")
    wrapped = {f"module.{name}": tensor for name, tensor in content["state_dict"].items()}
    found, _ = exported({**content, "state_dict": wrapped}, tmp_path)
    assert_same_tensors(found["state_dict"], content["state_dict"])


def our_content(model, optimizer, **others):
    stats = published_content("resnetp18/skip")["stats"]
    return {
        "epoch": 2,
        "arch": "resnetp18",
        "state_dict": model.state_dict(),
        "stats": {**stats, "epoch": [1, 2], "lr": [0.1, 0.1], "seconds": [1.0, 2.0]},
        "optimizer": optimizer.state_dict(),
        "args": {"pool": "max_ent", "seed": 3, "config_name": "digits"},
        **others,
    }


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = create_model("resnetp18", "max_ent", num_classes=10)
    for parameter in model.parameters():
        parameter.grad = torch.rand_like(parameter)
    return model


def after_a_step(optimizer):
    optimizer.step()
    return optimizer


def test_our_file_becomes_a_published_one(tmp_path, model):
    sgd = after_a_step(torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=1e-3))
    found, _ = exported(our_content(model, sgd), tmp_path)
    shapes = PUBLISHED_SHAPES["resnetp18/max_ent"]
    assert list(found["state_dict"]) == list(shapes)
    assert found["state_dict"]["fc.bias"].shape == (10,)
    for tensor, own in zip(found["state_dict"].values(), model.state_dict().values(), strict=True):
        assert torch.equal(tensor, own)
    assert set(found["stats"]) == set(published_content("resnetp18/skip")["stats"])
    # The published optimizer takes its parameters in the order of the state dict.
    parameters = [name for name in shapes if not name.endswith(STATISTICS)]
    assert found["optimizer"]["param_groups"][0]["weight_decay"] == 1e-3
    for number, (_, own) in zip(range(len(parameters)), model.named_parameters(), strict=True):
        assert torch.equal(
            found["optimizer"]["state"][number]["momentum_buffer"],
            sgd.state[own]["momentum_buffer"],
        )


def test_our_file_of_another_order(tmp_path, model):
    """As those of version 0.2, whose ResNets have their norms and poolings in another one."""
    *others, weight, bias = model.state_dict()
    order = [*reversed(others), weight, bias]
    parameters = dict(model.named_parameters())
    names = [name for name in order if name in parameters]
    sgd = after_a_step(torch.optim.SGD([parameters[name] for name in names], 0.1, 0.9))
    tensors = model.state_dict()
    content = our_content(model, sgd, state_dict={name: tensors[name] for name in order})
    found, _ = exported(content, tmp_path)
    assert list(found["state_dict"]) == list(PUBLISHED_SHAPES["resnetp18/max_ent"])
    for number, parameter in enumerate(model.parameters()):
        momentum = found["optimizer"]["state"][number]["momentum_buffer"]
        assert torch.equal(momentum, sgd.state[parameter]["momentum_buffer"])


def test_published_file_comes_back_by_way_of_ours(tmp_path):
    """Loaded into our network and optimizer, saved as our checkpoint, exported."""
    content = published_content("resnet18/max_ent")
    torch.save(content, tmp_path / "published.pth.tar")
    published = load_checkpoint(str(tmp_path / "published.pth.tar"))
    model = create_model("resnet18", "max_ent", num_classes=1000)
    load_model(model, published, "resnet18", "max_ent", data_classes=1000)
    sgd = torch.optim.SGD(model.parameters(), 0.01, 0.9, weight_decay=1e-4)
    load_optimizer(sgd, model, published)
    ours = replace(
        published, state_dict=model.state_dict(), optimizer=optimizer_state(sgd, model), seed=3
    )
    options = ["--arch", "resnet18", "--pool", "max_ent", "--out-dir", str(tmp_path)]
    path = save_checkpoint(ours, parse_settings(options))
    assert "bn1.weight" in torch.load(path, weights_only=True)["state_dict"]
    export(str(path), str(tmp_path / "back"), "published", pool=None, image_size=None)
    found = torch.load(tmp_path / "back", weights_only=False)
    assert_same_tensors(found["state_dict"], content["state_dict"])
    assert (found["epoch"], found["arch"], found["stats"]) == (2, "resnet18", content["stats"])
    for number, state in content["optimizer"]["state"].items():
        assert_same_tensors(found["optimizer"]["state"][number], state)
    (group,), (expected,) = (each["optimizer"]["param_groups"] for each in (found, content))
    assert {name: group[name] for name in expected} == expected


def test_exported_file_is_read_by_us(tmp_path, model):
    sgd = after_a_step(torch.optim.SGD(model.parameters(), 0.1, 0.9))
    exported(our_content(model, sgd), tmp_path)
    checkpoint = load_checkpoint(str(tmp_path / "exported.pth.tar"))
    assert (checkpoint.epoch, checkpoint.pool, checkpoint.seed) == (2, "max_ent", 3)
    again = create_model("resnetp18", "max_ent", num_classes=10)
    again.load_state_dict(checkpoint.state_dict)
    assert_same_tensors(again.state_dict(), model.state_dict())


def test_another_optimizer_leaves_no_state(tmp_path, model):
    adam = after_a_step(torch.optim.AdamW(model.parameters(), 0.1))
    found, said = exported(our_content(model, adam), tmp_path)
    assert "no state of the optimizer" in said
    sgd = torch.optim.SGD(model.parameters(), 1.0)
    sgd.load_state_dict(found["optimizer"])
    assert (sgd.param_groups[0]["momentum"], sgd.param_groups[0]["weight_decay"]) == (0.9, 1e-4)
    assert not sgd.state


def test_averaged_weights_are_taken_without_the_others_momentum(tmp_path, model):
    sgd = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    averaged = AveragedModel(model, use_buffers=True)
    nn.init.constant_(averaged.module.fc.bias, 3.0)
    averaged.update_parameters(model)
    found, said = exported(
        our_content(model, after_a_step(sgd), ema=averaged.state_dict()), tmp_path
    )
    assert "averaged weights" in said
    tensors = averaged.module.state_dict().values()
    for tensor, own in zip(found["state_dict"].values(), tensors, strict=True):
        assert torch.equal(tensor, own)
    assert found["optimizer"]["state"] == {}


def test_pooling_that_the_published_code_lacks_is_named(tmp_path):
    model = create_model("resnetp18", "soft", num_classes=10)
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    content = our_content(model, sgd, args={"pool": "soft"})
    with pytest.raises(UserError, match="no pooling soft, only max, avg, skip, max_ent"):
        exported(content, tmp_path)
    assert not (tmp_path / "exported.pth.tar").exists()
