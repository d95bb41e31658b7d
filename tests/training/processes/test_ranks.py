"""What the processes that train together tell each other."""

import torch

from tests.support.gloo_group import gloo_group
from tests.support.warm_python import run_warm
from training.processes.ranks import (
    Process,
    all_reduce_max,
    all_reduce_sum,
    broadcast_from_main,
    gather_objects,
    object_from_main,
)

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
