"""What torchrun's environment comes to, and what does not go with it."""

import shlex
from dataclasses import replace

import pytest
import torch

from tests.support.command_line import error_here
from train_imagenet import parse_settings
from training.checks import check_settings
from training.errors import UserError
from training.processes.torchrun import Torchrun, read_torchrun
from training.records.config import command_of

ENVIRONMENT = {
    "RANK": "5",
    "WORLD_SIZE": "6",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "1",
    "TORCHELASTIC_RESTART_COUNT": "3",
}


@pytest.fixture
def under_torchrun(monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def test_environment():
    assert read_torchrun(ENVIRONMENT) == Torchrun(5, 6, 1, 2, restarts=3, master_addr="127.0.0.1")
    without_count = dict(ENVIRONMENT)
    del without_count["TORCHELASTIC_RESTART_COUNT"]
    assert read_torchrun(without_count).restarts == 0
    # Some clusters number the machines like this; it is no process's place.
    assert read_torchrun({"RANK": "0", "WORLD_SIZE": "2"}) is None


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("LOCAL_WORLD_SIZE", None, "no LOCAL_WORLD_SIZE"),
        ("MASTER_PORT", None, "no MASTER_PORT"),
        ("RANK", "first", "'first'"),
        ("LOCAL_WORLD_SIZE", "4", "6 processes, 4 of them on this machine"),
        ("LOCAL_WORLD_SIZE", "0", "6 processes, 0 of them"),
    ],
)
def test_environment_that_cannot_be(name, value, words):
    environment = {**ENVIRONMENT, name: value}
    if value is None:
        del environment[name]
    with pytest.raises(UserError, match=words):
        read_torchrun(environment)


def test_batch_is_that_of_each_machine(under_torchrun):
    settings = parse_settings(["--cpu", "--batch-size", "8"])
    check_settings(settings)
    assert settings.is_distributed
    assert (settings.machines, settings.processes_here) == (3, 2)
    assert settings.images_per_step_here == 8


def test_command_that_repeats_the_run_leaves_torchrun_to_torchrun(under_torchrun, monkeypatch):
    settings = parse_settings(["--cpu", "--seed", "1"])
    torchrun, _, options = command_of(settings).partition(" train_imagenet.py ")
    assert torchrun == (
        "torchrun --nnodes 3 --rdzv-backend c10d --rdzv-endpoint 127.0.0.1:29500 --nproc-per-node 2"
    )
    options = shlex.split(options)
    assert options == ["--seed", "1", "--cpu"]
    assert parse_settings(options) == settings
    for name in ENVIRONMENT:
        monkeypatch.delenv(name)
    assert parse_settings(options) == replace(settings, torchrun=None)


def test_published_flags_leave_the_processes_to_torchrun(under_torchrun):
    """WORLD_SIZE and RANK are those of processes here, and not of machines."""
    options = ["--cpu", "--world-size", "-1", "--rank", "-1", "--dist-url", "env://"]
    settings = parse_settings(options)
    check_settings(settings)
    assert settings == parse_settings(["--cpu"])


def test_command_of_one_machine_of_torchrun(under_torchrun, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    command = command_of(parse_settings(["--batch-size", "8"]))
    assert command == "torchrun --nproc-per-node 2 train_imagenet.py --batch-size 8"


@pytest.mark.parametrize(
    "options",
    [
        ("--multiprocessing-distributed",),
        ("--world-size", 2),
        ("--world-size", 3, "--rank", 1),
        ("--gpu", 0),
        ("--nproc", 2),
    ],
)
def test_options_that_do_not_go_with_torchrun(under_torchrun, options):
    message = error_here(*options)
    assert "torchrun" in message
    assert options[0] in message


@pytest.mark.parametrize(
    ("gpus", "options", "lines"),
    [(4, (), 1), (1, (), 0), (4, ("--gpu", "2"), 0), (4, ("--cpu",), 0)],
)
def test_gpus_left_idle_get_a_line(monkeypatch, gpus, options, lines):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    notes = parse_settings(list(options)).notes
    assert len(notes) == lines
    if lines:
        assert "torchrun --nproc-per-node 4 train_imagenet.py" in notes[0]
        assert "--multiprocessing-distributed" in notes[0]
    for all_gpus in (["--multiprocessing-distributed"], ["--world-size", "2"]):
        assert parse_settings(all_gpus).notes == []
