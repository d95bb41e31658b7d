"""What the processes that train together tell each other."""

import pytest
import torch
from torch import nn

import training.command
from tests.support.gloo_group import gloo_group
from tests.support.tiny_network import SMALL_DIGITS, create_tiny_network
from tests.support.warm_python import run_warm
from train_imagenet import parse_settings
from training.data import find_data
from training.processes.ranks import (
    Process,
    all_reduce_max,
    all_reduce_sum,
    broadcast_from_main,
    gather_objects,
    object_from_main,
)
from training.run import Run

PROCESSES = 2


def test_one_process_keeps_its_own():
    alone = Process(0, 1, torch.device("cpu"))
    value = {"a": 1}
    assert gather_objects(value, alone) == [value]
    assert object_from_main(value, alone) == value
    assert all_reduce_sum(torch.ones(2), alone).tolist() == [1, 1]


def exchange(rank, folder):
    process = Process(rank, PROCESSES, torch.device("cpu"))
    with gloo_group(folder, rank, PROCESSES):
        assert all_reduce_sum(torch.tensor([1.0, rank]), process).tolist() == [2, 1]
        assert all_reduce_max(torch.tensor([-1.0, rank]), process).tolist() == [-1, 1]
        here = torch.full((3,), float(rank))
        broadcast_from_main([here], process)
        assert here.tolist() == [0, 0, 0]
        # Of different lengths, and one of none.
        values = [{"name": "x" * 1000, "state": torch.arange(5)}, None]
        for mine, theirs in (values, values[::-1]):
            first, second = gather_objects((mine, theirs)[rank], process)
            for found, given in ((first, mine), (second, theirs)):
                assert (found is None) == (given is None)
                assert found is None or found["name"] == given["name"]
                assert found is None or torch.equal(found["state"], given["state"])
        assert object_from_main(f"of {rank}", process) == "of 0"


def test_two_processes_exchange_numbers_and_objects(tmp_path):
    run_warm(exchange, (tmp_path,), PROCESSES)


def lend(rank, folder):
    process = Process(rank, PROCESSES, torch.device("cpu"))
    with gloo_group(folder, rank, PROCESSES):
        for _ in range(1000):
            values = torch.ones(5)
            all_reduce_sum(values, process)
            assert values._use_count() == 1
            broadcast_from_main([values], process)
            assert values._use_count() == 1


def test_no_thread_of_gloo_holds_what_has_been_exchanged(tmp_path):
    """It would free the tensor by way of Python, perhaps while a worker process is forked."""
    run_warm(lend, (tmp_path,), PROCESSES)


@pytest.mark.parametrize(
    ("options", "processes", "of_all"),
    [(["--sync-bn"], 2, True), (["--sync-bn"], 1, False), ([], 2, False)],
)
def test_processes_normalise_by_the_statistics_of_all_if_told_so(
    monkeypatch, options, processes, of_all
):
    """Up to the first epoch: PyTorch computes them on GPUs alone."""
    trained = []
    monkeypatch.setattr(training.command, "train_epochs", lambda **those: trained.append(those))
    settings = parse_settings([*map(str, SMALL_DIGITS), *options])
    run = Run(settings, Process(0, processes, torch.device("cpu")), seed=0)
    model = create_tiny_network("resnet18", "skip", 10)
    training.command.train_on(find_data(settings, run.process), model, None, run)
    modules = trained[0]["model"].modules()
    assert any(isinstance(module, nn.SyncBatchNorm) for module in modules) == of_all
