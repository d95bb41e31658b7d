"""Wait for data and GPU memory: what is measured is what was used, batches pass unchanged."""

import math
import time

import pytest
import torch

from tests.support.gloo_group import gloo_group
from tests.support.warm_python import run_warm
from training.processes.ranks import Process
from training.records.usage import MeasuredBatches

CPU = Process(0, 1, torch.device("cpu"))


class SlowBatches:
    """Batches that take a tenth of a second each, and so does the end."""

    def __init__(self, count):
        self.content = [object() for _ in range(count)]
        self.images = 2 * count

    def __iter__(self):
        for batch in self.content:
            time.sleep(0.1)
            yield batch
        time.sleep(0.1)


def test_wait_is_the_time_for_batches_alone():
    batches = SlowBatches(2)
    measured = MeasuredBatches(batches, CPU)
    assert measured.images == 4
    start = time.perf_counter()
    computing = 0.0
    for given, passed in zip(measured, batches.content, strict=True):
        assert given is passed
        received = time.perf_counter()
        time.sleep(0.05)
        computing += time.perf_counter() - received
    usage = measured.usage_of_all()
    elapsed = time.perf_counter() - start
    slept = 3 * 0.1
    bound = elapsed - computing  # however slow the machine
    assert 100 * slept / elapsed <= usage.data_wait_percent <= 100 * bound / elapsed
    assert math.isnan(usage.gpu_memory_gib)


def test_pass_without_batches_has_no_share_of_waiting():
    measured = MeasuredBatches(SlowBatches(0), CPU)
    assert list(measured) == []
    assert math.isnan(measured.usage_of_all().data_wait_percent)


def use_of_two(rank, folder):
    """As rank 0 wait for half of the time, as rank 1 hardly at all; save what all used."""
    with gloo_group(folder, rank, world_size=2):
        measured = MeasuredBatches(SlowBatches(1), Process(rank, 2, torch.device("cpu")))
        measured.wait_seconds = 5.0 - 4.0 * rank
        measured.start = time.perf_counter() - 10
        usage = measured.usage_of_all()
    torch.save(usage.data_wait_percent, folder / str(rank))


@pytest.mark.slow
def test_the_process_that_waited_most_counts(tmp_path):
    run_warm(use_of_two, (tmp_path,), 2)
    for rank in range(2):
        assert 10 < torch.load(tmp_path / str(rank)) <= 50  # however long it took
    assert torch.load(tmp_path / "0") == torch.load(tmp_path / "1")


@pytest.mark.gpu
def test_memory_is_the_peak_of_the_pass():
    device = torch.device("cuda", torch.cuda.current_device())
    before = torch.empty(2**28, device=device, dtype=torch.uint8)
    del before
    held = torch.cuda.memory_allocated(device)
    measured = MeasuredBatches(SlowBatches(1), Process(0, 1, device))
    for _ in measured:
        torch.empty(2**26, device=device, dtype=torch.uint8)
    assert measured.usage_of_all().gpu_memory_gib == pytest.approx((held + 2**26) / 2**30)
