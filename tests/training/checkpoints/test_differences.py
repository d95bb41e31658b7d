"""A resumed run does what its command line says, and says what of it is new."""

import json
import shutil

import pytest
import torch

from tests.support.command_line import output_here, read_log
from tests.support.tiny_network import SMALL_DIGITS, create_tiny_network
from train_imagenet import parse_settings
from training.checkpoints.differences import differences
from training.checkpoints.format import load_checkpoint

RUN = (*SMALL_DIGITS, "--seed", 5)
SAID = "other than so far: "


@pytest.fixture(autouse=True)
def _tiny_network(monkeypatch):
    monkeypatch.setattr("training.command.create_model", create_tiny_network)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The output directory of a run of two epochs."""
    out = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.command.create_model", create_tiny_network)
        output_here(*RUN, "--epochs", 2, "--lr-schedule", "step", "--out-dir", out)
    return out


@pytest.fixture
def out(first, tmp_path):
    """A copy of it."""
    return shutil.copytree(first, tmp_path / "out")


def resumed(out, *options):
    """Resume the run; return what it says that it does otherwise."""
    printed = output_here(*RUN, "--resume", "auto", "--out-dir", out, *options)
    lines = [line for line in printed.splitlines() if line.startswith(SAID)]
    return [line.removeprefix(SAID) for line in lines]


def test_nothing_new_is_nothing_said(out):
    options = ("--epochs", 3, "--lr-schedule", "step", "--tensorboard", "--keep-checkpoints", 5)
    assert resumed(out, *options) == ["--epochs was 2, is 3"]
    assert resumed(out, *options) == []


def test_another_recipe_is_obeyed_and_said(out):
    """Whatever the optimizer of the file was told."""
    options = ("--epochs", 3, "--config-name", "fashion-mnist", "--lr-schedule", "step")
    path = out / "checkpoint-epoch2.pth.tar"
    content = torch.load(path, weights_only=True)
    (group,) = content["optimizer"]["param_groups"]
    group.update(weight_decay=0.25, momentum=0.5, maximize=True, nesterov=True)
    torch.save(content, path)
    said = resumed(out, *options)
    assert "--config-name was digits, is fashion-mnist" in said
    assert "--lr was 0.01, is 0.1" in said
    assert "the learning rate of epoch 3 would have been" not in "".join(said)
    content = torch.load(out / "checkpoint-epoch3.pth.tar", weights_only=True)
    (group,) = content["optimizer"]["param_groups"]
    recipe = json.loads((out / "config.json").read_text())["resumed"][-1]["recipe"]
    assert (group["weight_decay"], group["momentum"]) == (5e-4, 0.9)
    assert (recipe["weight_decay"], recipe["momentum"]) == (5e-4, 0.9)
    assert not group["maximize"] and not group["nesterov"]


def checkpoint_with(out, **args):
    """Return the newest checkpoint of the run, of which other things are told."""
    path = out / "checkpoint-epoch2.pth.tar"
    content = torch.load(path, weights_only=True)
    content["args"].update(args)
    torch.save(content, path)
    return load_checkpoint(str(path))


def test_what_the_recipe_decides_is_compared(out):
    """The imagenet recipe has its own weight decay, batch and schedule."""
    settings = parse_settings([*map(str, RUN), "--config-name", "imagenet", "--epochs", "3"])
    said = differences(load_checkpoint(str(out / "checkpoint-epoch2.pth.tar")), settings)
    decay = "weight-decay" if any("--weight-decay" in line for line in said) else "weight decay"
    assert any(f"{decay} was 0.0005, is 0.0001" in line for line in said)
    assert "--config-name was digits, is imagenet" in said
    assert "--warmup-epochs was 1, is 0" in said
    assert not any("--batch-size" in line for line in said)


def test_jump_of_the_learning_rate_is_said(tmp_path):
    """A cosine that is made longer begins anew: it is not at its end any more."""
    output_here(*RUN, "--epochs", 3, "--out-dir", tmp_path)
    said = resumed(tmp_path, "--epochs", 6)
    rates = [float(row["lr"]) for row in read_log(tmp_path)]
    assert rates[3] > rates[2]
    assert said == [
        "--epochs was 3, is 6",
        f"the learning rate of epoch 4 is {rates[3]:.4g}, after {rates[2]:.4g} in epoch 3",
    ]


def test_planned_learning_rate_that_changes_is_said(out):
    settings = parse_settings([*map(str, RUN), "--epochs", "3"])
    assert differences(checkpoint_with(out, epochs=3), settings) == [
        "--lr-schedule was step, is cosine",
        "the learning rate of epoch 3 would have been 0.01, is 0.005, after 0.01 in epoch 2",
    ]


def test_seed_and_options_that_were_not_given(out):
    said = resumed(out, "--epochs", 3, "--lr-schedule", "step", "--seed", 6, "--amp", "bf16")
    assert "--seed was 5, is 6" in said
    assert "--amp was off, is bf16" in said
    assert len(said) == 3
    settings = parse_settings([*map(str, SMALL_DIGITS), "--limit-train-batches", "7"])
    (line,) = [each for each in differences(checkpoint_with(out), settings) if "limit" in each]
    assert line == "--limit-train-batches was 3, is 7"


def test_other_number_of_machines(out):
    """Each takes --batch-size images a step."""
    settings = parse_settings([*map(str, RUN), "--epochs", "2", "--lr-schedule", "step"])
    place = {"rank": 0, "world_size": 4, "local_rank": 0, "local_world_size": 2, "restarts": 0}
    said = differences(checkpoint_with(out, torchrun=place), settings)
    assert said == ["number of machines was 2, is 1"]


@pytest.mark.parametrize(
    "args",
    [
        {"config_name": "gone"},
        {"config_name": None},
        {"epochs": "many"},
        {"lr": "high"},
        {"torchrun": {}},
        {"limit_train_batches": torch.zeros(2)},
    ],
)
def test_run_of_which_nothing_can_be_told(out, args):
    settings = parse_settings([*map(str, RUN)])
    (line,) = differences(checkpoint_with(out, **args), settings)
    assert line.startswith("what its run was told cannot be compared")


def test_run_of_more_epochs_than_can_be_counted(out):
    settings = parse_settings([*map(str, RUN), "--epochs", "3", "--lr-schedule", "step"])
    said = differences(checkpoint_with(out, epochs=10**30), settings)
    assert said == [f"--epochs was {10**30}, is 3"]


def test_run_of_another_version(out):
    """It had fewer options, and others."""
    checkpoint = checkpoint_with(out, long_gone=3)
    del checkpoint.args["label_smoothing"]
    settings = parse_settings([*map(str, RUN), "--epochs", "3", "--lr-schedule", "step"])
    assert differences(checkpoint, settings) == ["--epochs was 2, is 3"]


def test_another_optimizer_begins_with_no_state(out):
    """That of the one before means nothing to it."""
    said = resumed(out, "--epochs", 3, "--lr-schedule", "step", "--optimizer", "adamw")
    assert "--optimizer was sgd, is adamw; its state begins anew" in said
    content = torch.load(out / "checkpoint-epoch3.pth.tar", weights_only=True)
    (step,) = {int(state["step"]) for state in content["optimizer"]["state"].values()}
    assert step == 3  # batches of the one epoch
    assert all("momentum_buffer" not in each for each in content["optimizer"]["state"].values())


def test_weight_decay_of_the_command_line_is_obeyed(out):
    options = ("--weight-decay", 0.25, "--momentum", 0.5, "--weight-decay-on", "weights")
    said = resumed(out, "--epochs", 3, "--lr-schedule", "step", *options)
    assert set(said) == {
        "--epochs was 2, is 3",
        "--weight-decay was 0.0005, is 0.25",
        "--momentum was 0.9, is 0.5",
        "--weight-decay-on was all, is weights",
    }
    content = torch.load(out / "checkpoint-epoch3.pth.tar", weights_only=True)
    (group,) = content["optimizer"]["param_groups"]
    assert (group["weight_decay"], group["momentum"]) == (0.25, 0.5)
