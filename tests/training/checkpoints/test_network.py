"""The network of a checkpoint, from the file alone."""

import argparse
import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from models import create_model
from models.pooling import POOL_TYPES
from training.checkpoints.format import Checkpoint, load_checkpoint
from training.checkpoints.network import network_of
from training.errors import UserError

STATS = ("train_err1", "train_err5", "train_loss", "test_err1", "test_err5", "test_loss")


def with_random_numbers(model):
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 1.5)
    return model


def checkpoint_of(model, arch, pool):
    return Checkpoint(1, arch, pool, 0, model.state_dict(), {}, [], path="FILE")


def assert_tensors_are(network, tensors):
    own = network.state_dict()
    assert list(own) == list(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(own[name], tensor), name


@pytest.mark.parametrize("pool", POOL_TYPES)
def test_network_and_classes_are_the_files(pool):
    model = with_random_numbers(create_model("resnet18", pool, num_classes=7))
    network = network_of(checkpoint_of(model, "resnet18", pool))
    assert not network.training
    assert str(network) == str(model)
    assert_tensors_are(network, model.state_dict())


def test_published_file_whose_args_do_not_name_the_pooling(tmp_path):
    model = with_random_numbers(create_model("resnetp18", "max_ent", num_classes=3))
    names = {"conv1": "1", "norm1": "2", "conv2": "4", "norm2": "5"}
    published = {}
    for name, tensor in model.state_dict().items():
        for own, theirs in names.items():
            name = name.replace(f"head.{own}.", f"ToParam.{theirs}.")
        published[f"module.{name}"] = tensor
    content = {
        "epoch": 1,
        "arch": "resnetp18",
        "state_dict": published,
        "stats": {name: [1.0] for name in STATS},
        "optimizer": {"state": {}, "param_groups": [{"params": []}]},
        "args": argparse.Namespace(arch="resnetp18"),
    }
    torch.save(content, tmp_path / "published.pth.tar")
    checkpoint = load_checkpoint(str(tmp_path / "published.pth.tar"))
    assert checkpoint.pool is None
    assert_tensors_are(network_of(checkpoint), model.state_dict())


@pytest.fixture
def plain():
    """A network without tensors in its poolings, whose pooling no name tells."""
    return with_random_numbers(create_model("resnet18", "avg", num_classes=3))


def test_pooling_that_no_tensor_tells_is_asked_for(plain):
    checkpoint = checkpoint_of(plain, "resnet18", None)
    with pytest.raises(UserError, match=r"FILE: .*--pool"):
        network_of(checkpoint)
    assert str(network_of(checkpoint, pool="avg")) == str(plain)


def averaging(plain):
    averaged = AveragedModel(plain, use_buffers=True)
    averaged.update_parameters(with_random_numbers(copy.deepcopy(plain)))
    checkpoint = checkpoint_of(plain, "resnet18", "avg")
    return replace(checkpoint, ema=averaged.state_dict()), averaged.module


def test_averaged_weights_are_taken(plain):
    checkpoint, averaged = averaging(plain)
    assert not torch.equal(averaged.fc.bias, plain.fc.bias)
    assert_tensors_are(network_of(checkpoint), averaged.state_dict())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arch": "resnet34"}, ["--arch resnet34", "layer1.2.conv1.weight"]),
        ({"arch": "resnet51"}, ["resnet51", "'resnet50'"]),
        ({"pool": "max_ent"}, ["--pool max_ent", "pool1.head"]),
        ({"pool": "median"}, ["pool 'median'"]),
        ({"state_dict": {"fc.bias": torch.zeros(0)}}, ["num_classes"]),
        ({"ema": {"fc.bias": torch.zeros(3)}}, ["conv1.weight"]),
    ],
)
def test_other_tensors_are_refused_in_one_line(plain, change, words):
    checkpoint = replace(checkpoint_of(plain, "resnet18", "avg"), **change)
    with pytest.raises(UserError) as raised:
        network_of(checkpoint)
    for word in ("FILE: ", *words):
        assert word in str(raised.value)
