"""Checkpoint files: their layout, what they accept and refuse, what a failure leaves."""

import argparse
import gzip
import json
import pickle
import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import transforms

from models import create_model
from tests.support.paths import REPOSITORY
from train_imagenet import parse_settings
from training.atomic_write import atomic_write
from training.checkpoints.format import (
    Checkpoint,
    load_checkpoint,
    load_model,
    save_checkpoint,
)
from training.checkpoints.optimizer_state import load_optimizer
from training.errors import UserError
from training.records.history import EpochRecord

PUBLISHED_KEYS = {"epoch", "arch", "state_dict", "stats", "optimizer", "args"}
PUBLISHED_STATE_DICTS = REPOSITORY / "tests" / "models" / "data" / "published_state_dicts.json.gz"


def settings_for(out_dir, *options):
    return parse_settings(["--arch", "resnet18", "--out-dir", str(out_dir), *options])


def record(epoch, val_err1):
    seconds, images_per_second, data_wait_percent, gpu_memory_gib = 10.0, 100.0, 12.5, 3.0
    return EpochRecord(
        *(epoch, 0.1, 2.0, 80.0, 30.0, 2.0, val_err1, 20.0),
        *(seconds, images_per_second, data_wait_percent, gpu_memory_gib),
        *(0.0, 2.5, 90.0, 40.0),
    )


def save(out_dir, errors, *options):
    """Save the checkpoint after ``len(errors)`` epochs of a small network; return its path."""
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    history = [record(epoch, err) for epoch, err in enumerate(errors, start=1)]
    checkpoint = checkpoint_of(model, optimizer, "resnet18", "max_ent", history)
    return save_checkpoint(checkpoint, settings_for(out_dir, *options))


def checkpoint_of(model, optimizer, arch, pool, history, partial_epoch=None):
    return Checkpoint(
        *(len(history), arch, pool, 7, model.state_dict(), optimizer.state_dict(), history),
        partial_epoch=partial_epoch,
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_checkpoint_has_the_published_layout_in_plain_types(tmp_path):
    path = save(tmp_path, [5.0])
    assert path.name == "checkpoint-epoch1.pth.tar"
    content = torch.load(path, weights_only=True)
    assert set(content) == PUBLISHED_KEYS
    assert (content["epoch"], content["arch"]) == (1, "resnet18")
    assert content["args"]["pool"] == "max_ent"
    assert set(content["state_dict"]) == {"weight", "bias"}
    assert content["stats"]["test_err1"] == [5.0]


def test_checkpoint_comes_back(tmp_path):
    checkpoint = load_checkpoint(str(save(tmp_path, [5.0, 4.0])))
    assert (checkpoint.epoch, checkpoint.arch, checkpoint.pool) == (2, "resnet18", "max_ent")
    assert checkpoint.seed == 7
    assert checkpoint.history == [record(1, 5.0), record(2, 4.0)]
    assert checkpoint.optimizer["state"][0]["momentum_buffer"].tolist() == [[1, 1, 1]] * 2


def test_model_best_is_the_best_epoch(tmp_path):
    errors = [5.0, 3.0, 4.0]
    for count in (1, 2, 3):
        save(tmp_path, errors[:count])
    assert load_checkpoint(str(tmp_path / "model_best.pth.tar")).epoch == 2
    assert names(tmp_path) == [
        *(f"checkpoint-epoch{epoch}.pth.tar" for epoch in (1, 2, 3)),
        "model_best.pth.tar",
    ]


def test_only_the_last_checkpoint_is_kept_on_request(tmp_path):
    for errors in ([5.0], [5.0, 3.0], [5.0, 3.0, 4.0]):
        save(tmp_path, errors, "--save-last-checkpoint")
    assert names(tmp_path) == ["checkpoint-epoch3.pth.tar", "model_best.pth.tar"]


def test_failed_write_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "file"
    path.write_text("whole")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as temporary:
        temporary.write_text("ha")
        raise ZeroDivisionError
    assert path.read_text() == "whole"
    assert names(tmp_path) == ["file"]
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "whole"
    assert path.read_text() == "new"


def published_args(monkeypatch, with_module_transforms):
    """Return the Namespace of the published implementation, its transforms included."""
    names = ("utils", "utils.mytransforms")
    modules = {name: ModuleType(name) for name in names}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    lighting = type(
        "Lighting", (), {"__module__": "utils.mytransforms", "__qualname__": "Lighting"}
    )
    modules["utils.mytransforms"].Lighting = lighting
    noise = lighting()
    noise.eigval = torch.ones(3)
    steps = [transforms.ToTensor(), noise]
    if with_module_transforms:
        steps += [
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4),
            transforms.Normalize([0.5] * 3, [0.5] * 3),
            transforms.Resize(256),
            transforms.CenterCrop(224),
        ]
    return argparse.Namespace(
        arch="resnet18", pool="max_ent", train_transform=transforms.Compose(steps), lrs=[0.1] * 3
    )


def published_content(args):
    with gzip.open(PUBLISHED_STATE_DICTS, "rt") as file:
        shapes = json.load(file)["resnet18/max_ent"]
    generator = torch.Generator().manual_seed(0)
    state_dict = {
        f"module.{name}": torch.tensor(3)
        if name.endswith("num_batches_tracked")
        else torch.rand(shape, generator=generator)
        for name, shape in shapes.items()
    }
    parameters = [
        nn.Parameter(value)
        for name, value in state_dict.items()
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    ]
    optimizer = torch.optim.SGD(parameters, lr=1e-9, momentum=0.9)
    sum(parameter.square().sum() for parameter in parameters).backward()
    optimizer.step()
    stats = {
        key: [90.0, np.float64(80.0)]
        for key in ("train_err1", "train_err5", "train_loss", "test_err1", "test_err5", "test_loss")
    }
    return {
        "epoch": 2,
        "arch": "resnet18",
        "state_dict": state_dict,
        "stats": stats,
        "optimizer": optimizer.state_dict(),
        "args": args,
    }


@pytest.mark.parametrize("zip_format", [True, False])
def test_published_checkpoint_is_read_into_the_network(tmp_path, monkeypatch, zip_format):
    """Of the format of torch 1.6 and later, and of the earlier one."""
    path = tmp_path / "published.pth.tar"
    with monkeypatch.context() as patch:
        # The earlier format dates from before torchvision's transforms were nn.Modules.
        args = published_args(patch, with_module_transforms=zip_format)
        content = published_content(args)
        torch.save(content, path, _use_new_zipfile_serialization=zip_format)
    checkpoint = load_checkpoint(str(path))
    assert (checkpoint.epoch, checkpoint.pool, checkpoint.seed) == (2, "max_ent", None)
    assert [entry.val_err1 for entry in checkpoint.history] == [90.0, 80.0]
    model = create_model("resnet18", "max_ent", 1000)
    load_model(model, checkpoint, "resnet18", "max_ent", data_classes=1000)
    published = content["state_dict"]
    assert torch.equal(model.conv1.weight, published["module.conv1.weight"])
    assert torch.equal(model.fc.bias, published["module.fc.bias"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    load_optimizer(optimizer, model, checkpoint)
    # The published optimizer holds a momentum equal to the gradient: here twice the tensor.
    for parameter in model.parameters():
        momentum = optimizer.state[parameter]["momentum_buffer"]
        torch.testing.assert_close(momentum, 2 * parameter.detach())


def network_checkpoint(path, arch, pool, classes):
    """Save a checkpoint of a fresh network; return its settings' options and a Checkpoint."""
    model = create_model(arch, pool, classes)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    options = ["--arch", arch, "--pool", pool, "--out-dir", str(path)]
    checkpoint = checkpoint_of(model, optimizer, arch, pool, [record(1, 5.0)])
    return save_checkpoint(checkpoint, parse_settings(options))


@pytest.mark.parametrize(
    ("arch", "pool", "classes", "data_classes", "message"),
    [
        ("resnet34", "avg", 10, 10, r"of --arch resnet18 --pool avg, not of --arch resnet34"),
        ("resnet18", "max", 10, 10, r"--pool avg, not of --arch resnet18 --pool max"),
        ("resnet18", "avg", 7, 7, r"has 10 classes, not 7.*--num-classes 10"),
        ("resnet18", "avg", 20, 7, r"has 10 classes, not 20.*--num-classes 10"),
        ("resnet18", "avg", 12, 12, r"has 10 classes, not 12; use its data set$"),
    ],
)
def test_checkpoint_of_another_network_is_refused(
    tmp_path, arch, pool, classes, data_classes, message
):
    saved = network_checkpoint(tmp_path, "resnet18", "avg", 10)
    model, checkpoint = create_model(arch, pool, classes), load_checkpoint(str(saved))
    with pytest.raises(UserError, match=f"--resume {saved}: .*{message}"):
        load_model(model, checkpoint, arch, pool, data_classes)


def test_checkpoint_with_other_tensors_is_refused(tmp_path):
    saved = network_checkpoint(tmp_path, "resnet18", "avg", 10)
    content = torch.load(saved, weights_only=True)
    content["state_dict"]["layer1.0.conv1.weight"] = torch.zeros(1)
    torch.save(content, saved)
    model = create_model("resnet18", "avg", 10)
    with pytest.raises(UserError, match=r"layer1.0.conv1.weight"):
        load_model(model, load_checkpoint(str(saved)), "resnet18", "avg", data_classes=10)


def test_optimizer_state_of_other_parameters_is_refused(tmp_path):
    path = save(tmp_path, [5.0])
    checkpoint = load_checkpoint(str(path))
    state = checkpoint.optimizer
    (group,) = state["param_groups"]
    others = (
        {**state, "param_groups": [{**group, "params": [0]}]},
        {**state, "param_groups": [group, group]},
        {**state, "state": {0: state["state"][1], 1: state["state"][0]}},
        {},
    )
    for other in others:
        model = nn.Linear(3, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        with pytest.raises(UserError, match="optimizer state"):
            load_optimizer(optimizer, model, replace(checkpoint, optimizer=other))


def without(content, key):
    return {name: value for name, value in content.items() if name != key}


def test_file_that_is_no_checkpoint_is_refused(tmp_path):
    content = torch.load(save(tmp_path, [5.0]), weights_only=True)
    path = tmp_path / "file"
    others = [
        *(without(content, key) for key in sorted(PUBLISHED_KEYS)),
        content["state_dict"],
        [1, 2],
        {**content, "state_dict": {"weight": "text"}},
        {**content, "state_dict": {}},
        {**content, "stats": [1]},
        {**content, "args": 3},
        {**content, "epoch": -1},
        {**content, "epoch": "first"},
        {**content, "args": {"seed": "mine"}},
        {**content, "stats": {**content["stats"], "train_loss": [10**400]}},
        torch.zeros(3),
        torch.tensor(3),
    ]
    for other in others:
        torch.save(other, path)
        with pytest.raises(UserError, match=f"{path}: is no checkpoint"):
            load_checkpoint(str(path))


def test_damaged_file_is_refused(tmp_path):
    whole = save(tmp_path, [5.0]).read_bytes()
    path = tmp_path / "file"
    rest = [whole[: len(whole) * part // 8] for part in range(8)]
    for damaged in (*rest, b"text\n" * 100, bytes(range(256)), pickle.dumps("text")):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=f"{path}: is no checkpoint"):
            load_checkpoint(str(path))
    path.write_bytes(b"hello")  # a KeyError of the unpickler, with the number of a letter
    with pytest.raises(UserError, match=r"can be read, damaged or not written by torch\.save$"):
        load_checkpoint(str(path))
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(UserError, match=f"{missing}: no such file"):
            load_checkpoint(str(missing))
