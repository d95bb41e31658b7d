"""Whole runs with every option of augmentation: they resume to the same bits."""

import os
import signal

import pytest
import torch

from tests.support.command_line import error_here, output_here, run_here
from tests.support.tiny_network import SMALL_DIGITS, create_tiny_network
from training.processes.interruption import Interruption

EVERYTHING = (
    *("--mixup", 0.2, "--cutmix", 1, "--rand-augment", "--random-erasing", 0.5),
    *(
        "--repeated-augmentation",
        2,
        "--image-size",
        24,
        "--crop-pct",
        0.8,
        "--interpolation",
        "bicubic",
    ),
)
RUNS = {
    "every option": EVERYTHING,
    "trivial augment": ("--trivial-augment", "--mixup", 0.4, "--val-size", 40),
    "A2": ("--config-name", "imagenet-a2", "--image-size", 32, "--warmup-epochs", 0),
    "fast decoding": ("--config-name", "imagenet", "--image-size", 32, "--decode", "fast"),
}


@pytest.fixture(autouse=True)
def _tiny_network(monkeypatch):
    monkeypatch.setattr("training.command.create_model", create_tiny_network)


def stop_in_the_second_batch(monkeypatch):
    """Have a real signal sent at the second check of a run."""
    check, calls = Interruption.check, iter(range(1, 10**6))

    def checked(interruption):
        if next(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        check(interruption)

    monkeypatch.setattr(Interruption, "check", checked)


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS)
def test_stopped_run_resumes_to_the_same_bits(tmp_path, monkeypatch, options):
    run = (*SMALL_DIGITS, *options, "--epochs", 1, "--seed", 5)
    output_here(*run, "--out-dir", tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_in_the_second_batch(patch)
        assert run_here(*run, "--out-dir", tmp_path / "stopped")[0] == 128 + signal.SIGTERM
    output_here(*run, "--out-dir", tmp_path / "stopped", "--resume", "auto")
    whole, stopped = (
        torch.load(tmp_path / name / "checkpoint-epoch1.pth.tar", weights_only=True)["state_dict"]
        for name in ("whole", "stopped")
    )
    assert all(torch.equal(tensor, stopped[name]) for name, tensor in whole.items())
    plain = tmp_path / "plain"
    output_here(*SMALL_DIGITS, "--epochs", 1, "--seed", 5, "--out-dir", plain)
    other = torch.load(plain / "checkpoint-epoch1.pth.tar", weights_only=True)["state_dict"]
    assert not all(torch.equal(tensor, other[name]) for name, tensor in whole.items())


def test_epoch_does_not_go_on_with_other_repeats(tmp_path, monkeypatch):
    run = (*SMALL_DIGITS, "--epochs", 1, "--seed", 5, "--out-dir", tmp_path)
    stop_in_the_second_batch(monkeypatch)
    run_here(*run)
    left = tmp_path / "checkpoint-epoch0-batch2.pth.tar"
    message = error_here(*run, "--resume", left, "--repeated-augmentation", 3)
    assert "repeated_augmentation was None, is 3" in message
