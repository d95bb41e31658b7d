"""The learning rates: milestones as PyTorch has them, and those of each step."""

import math
import re
from dataclasses import replace

import pytest
import torch

from tests.support.command_line import output_here, read_log
from tests.support.tiny_network import SMALL_DIGITS, create_tiny_network
from train_imagenet import parse_settings
from training.recipes import RECIPES
from training.schedules import Schedule
from training.step import TrainingStep


def test_milestones_are_those_of_pytorch():
    schedule = Schedule("milestones", lr=0.5, epochs=8, milestones=(2, 3, 6), gamma=0.2)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 3, 6], gamma=0.2)
    for epoch in range(8):
        assert schedule.learning_rate(epoch) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()


def test_milestones_on_the_command_line():
    options = ["--lr-schedule", "milestones", "--lr-milestones", "1,3", "--lr-gamma", "0.5"]
    settings = parse_settings(["--lr", "1", "--epochs", "4", "--warmup-epochs", "0", *options])
    assert settings.learning_rates == [1.0, 0.5, 0.5, 0.25]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            "--config-name imagenet-a2 --epochs 5",
            "--epochs 5: .* lasts 5, .* 0.005; .*--warmup-epochs N",
        ),
        ("--config-name imagenet-a2 --epochs 6", None),
        ("--config-name imagenet-a2 --epochs 5 --evaluate --pretrained", None),
        (
            "--lr-schedule milestones --lr-milestones 4,90,95 --epochs 90",
            "has 90 epochs, .* 90 and 95",
        ),
        ("--lr-schedule milestones --lr-milestones 4,89 --epochs 90", None),
        ("--evaluate --pretrained --log wandb --tensorboard", "^--log and --tensorboard: --eval"),
    ],
)
def test_what_a_run_does_not_come_to_is_told(options, words):
    notes = parse_settings(["--data", "images", "--cpu", *options.split()]).notes
    assert len(notes) == (words is not None)
    assert words is None or re.search(words, notes[0])


def test_each_step_has_its_learning_rate():
    """Of 3 epochs of 4 steps: a warm-up in equal steps to the fifth, then half a cosine."""
    recipe = replace(
        RECIPES["digits"], lr=0.5, epochs=3, warmup_epochs=1, lr_per_step=True, lr_schedule="cosine"
    )
    rates = [recipe.learning_rate(step // 4, step % 4, batches=4) for step in range(12)]
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    expected = [0.25 * (1 + math.cos(math.pi * step / 8)) for step in range(8)]
    assert rates[4:] == pytest.approx(expected)


@pytest.mark.parametrize("per_step", [False, True])
def test_steps_are_taken_at_their_learning_rates(tmp_path, monkeypatch, per_step):
    monkeypatch.setattr("training.command.create_model", create_tiny_network)
    take, taken = TrainingStep.__call__, []

    def noted(step, batch, sums):
        taken.append([group["lr"] for group in step.optimizer.param_groups])
        return take(step, batch, sums)

    monkeypatch.setattr(TrainingStep, "__call__", noted)
    options = ("--epochs", 2, "--lr", 0.3, "--warmup-epochs", 1, "--lr-schedule", "cosine")
    switch = "--lr-per-step" if per_step else "--no-lr-per-step"
    output_here(*SMALL_DIGITS, *options, switch, "--out-dir", tmp_path)
    falling = [0.3, 0.225, 0.075]
    expected = [0.075, 0.15, 0.225, *falling] if per_step else [0.15] * 3 + [0.3] * 3
    assert [lr for (lr,) in taken] == pytest.approx(expected)
    assert [float(row["lr"]) for row in read_log(tmp_path)] == pytest.approx(expected[::3])


@pytest.mark.parametrize("schedule", ["step", "cosine"])
def test_epoch_has_one_learning_rate_unless_it_is_asked_for(schedule):
    recipe = replace(RECIPES["imagenet"], lr_schedule=schedule, warmup_epochs=2)
    for epoch in (0, 1, 2, 29, 30, 119):
        rates = {recipe.learning_rate(epoch, batch, batches=10) for batch in range(10)}
        assert rates == {recipe.learning_rates()[epoch]}


def test_published_steps_fall_between_epochs_only():
    recipe = replace(RECIPES["imagenet"], lr_per_step=True)
    rates = [recipe.learning_rate(epoch, batch, 5005) for epoch in (29, 30) for batch in (0, 5004)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01])
