"""Worker processes: one that dies or hangs is an error in time, stop signals are not for them."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.support.command_line import checked_error, free_dist_url, start_command
from tests.support.image_folders import write_image_folder
from tests.support.paths import REPOSITORY
from tests.support.warm_python import HANG, exit_code
from tests.support.worker_processes import (
    children,
    is_worker,
    kill,
    needs_proc,
    time_limit,
    workers_of,
)
from training.errors import UserError
from training.images.batch_transform import BatchTransform
from training.images.datasets import ImageArray, ImageFiles
from training.loading.batches import BatchLoader
from training.loading.global_batches import GlobalBatches
from training.loading.samples import Sample, TransformedImages, training_images
from training.loading.workers import SECONDS_BETWEEN_LOOKS, report_of, shares_of
from training.processes.ranks import Process
from training.processes.stop_signals import hold_stop_signals
from training.recipes import RECIPES

CPU = torch.device("cpu")
STUCK = Path("train", "class0", "stuck.JPEG")


@pytest.fixture(autouse=True)
def _no_worker_left():
    """End workers that a test has left, of an error's traceback or because they hang: pytest would
    wait for them in the end."""
    yield
    for worker in multiprocessing.active_children():
        worker.terminate()
        worker.join(5)
        worker.kill()


def array(count):
    return ImageArray(np.zeros((count, 32, 32, 3), np.uint8), np.arange(count))


def loader(images, workers=2, batch_size=1, **options):
    process = Process(0, 1, CPU)
    sampler = GlobalBatches(len(images), batch_size, process)
    augmented = training_images(images, RECIPES["digits"], seed=0)
    return BatchLoader(augmented, sampler, workers, process, 0, **options)


def wait_until(holds, seconds=HANG):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.02)


def write_stuck_file(path):
    """Write what blocks whoever opens it, as a file on storage that does not answer."""
    os.mkfifo(path)
    return path


@contextmanager
def reader_of(path):
    """Wait for one that opens a stuck file, and keep it waiting within the block."""

    def opened():
        with suppress(OSError):  # ENXIO: nobody has opened it
            found.append(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        return found

    found = []
    wait_until(opened)
    yield
    os.close(found[0])


@contextmanager
def long_run(folder, *options, stuck=False):
    """A run with worker processes that would take hours, if no file is stuck.

    Its standard error goes to the file ``stderr``.
    """
    data = write_image_folder(folder / "data", train=10, val=2)
    if stuck:
        write_stuck_file(data / STUCK)
    command = (
        *("--data", data, "--arch", "resnet18", "--pool", "skip", "--config-name", "digits"),
        *("--epochs", 10_000, "--batch-size", 4, "--workers", 2, "--cpu"),
        *("--out-dir", folder / "out", "--save-last-checkpoint"),
    )
    run = start_command(*command, *options, stdout=Path(os.devnull), stderr=folder / "stderr")
    try:
        yield run
    finally:
        run.kill()
        run.join()


def error_of(run, folder):
    return checked_error(exit_code(run), (folder / "stderr").read_text())


def kill_workers_until_the_end(run, employers):
    """Kill a worker of ``employers()``; again where its epoch ended before that was noticed."""

    def ended():
        for employer in employers():
            for worker in workers_of(employer)[:1]:
                kill(worker)
        return run.exitcode is not None

    wait_until(ended)


@needs_proc
def test_killed_worker_ends_the_command(tmp_path):
    with long_run(tmp_path) as run:
        kill_workers_until_the_end(run, lambda: [run.pid])
        error = error_of(run, tmp_path)
    assert "a worker process has died (pid " in error
    assert "killed by signal: Killed" in error
    assert "memory" in error and "/dev/shm" in error and "--workers" in error


@needs_proc
@pytest.mark.slow
def test_killed_worker_of_one_process_of_two_ends_the_command(tmp_path):
    two_processes = (
        *("--multiprocessing-distributed", "--nproc", 2),
        *("--dist-url", free_dist_url(), "--dist-backend", "gloo"),
    )
    processes = set()

    def last_with_workers():
        found = [child for child in children(run.pid) if workers_of(child)]
        processes.update(found)
        return found[-1:] if len(found) == 2 else []

    with long_run(tmp_path, *two_processes) as run:
        kill_workers_until_the_end(run, last_with_workers)
        assert "a worker process has died" in error_of(run, tmp_path)
    wait_until(lambda: not any(Path(f"/proc/{process}").exists() for process in processes))


def test_hung_worker_is_an_error_and_leaves(tmp_path):
    stuck = ImageFiles([(str(write_stuck_file(tmp_path / "x.JPEG")), 0)])
    with time_limit(HANG), pytest.raises(UserError) as error:
        list(loader(stuck, workers=1, worker_timeout=1))
    assert str(error.value).startswith("--worker-timeout 1: no worker process delivered a batch")
    del error
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_hung_worker_ends_the_command(tmp_path):
    with long_run(tmp_path, "--worker-timeout", 5, stuck=True) as run:
        assert "--worker-timeout 5" in error_of(run, tmp_path)


class SlowImages(ImageArray):
    def target(self, index):
        if index == 2:
            time.sleep(2 * SECONDS_BETWEEN_LOOKS)
        return super().target(index)


def test_worker_may_be_slow():
    """Longer than this process waits until it looks whether the worker lives."""
    images = SlowImages(array(6).images, np.arange(6))
    with time_limit(HANG):
        targets = [batch.targets.item() for batch in loader(images, workers=1)]
    assert targets == list(range(6))


class FaultyImages(ImageArray):
    def image(self, index):
        raise self.fault

    @property
    def fault(self):
        return RuntimeError("an error of ours")


class OtherFaultyImages(FaultyImages):
    fault = KeyError("an error of ours")


@pytest.mark.parametrize("images", [FaultyImages, OtherFaultyImages])
def test_error_in_the_code_of_a_worker_stays_as_it_is(images):
    faulty = images(array(4).images, array(4).targets)
    with time_limit(HANG), pytest.raises(type(faulty.fault), match="Traceback"):
        list(loader(faulty))


@needs_proc
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGBUS])
def test_death_of_a_worker_interrupts_nothing_but_the_wait_for_it(signum):
    """Raised by a signal's handler it might leave a lock locked that the process's end needs."""
    with time_limit(HANG):
        batches, workers = started(loader(array(400)))
        os.kill(workers[1], signum)
        # SIGCHLD is here once the end can be waited for, and so would be its handler's error.
        os.waitid(os.P_PID, workers[1], os.WEXITED | os.WNOWAIT)
        with pytest.raises(UserError, match="a worker process has died") as error:
            list(batches)
    assert f"(pid {workers[1]} is killed by signal: {signal.strsignal(signum)})" in str(error.value)


@needs_proc
def test_lock_of_a_dead_worker_holds_up_nobody():
    """Of the event by which PyTorch tells all to leave; one may die while it looks at it."""
    with time_limit(HANG):
        shares = shares_of(loader(array(400)).loader, seconds=HANG)
        next(shares)
        iterator = shares.gi_frame.f_locals["shares"]
        iterator._workers_done_event._event._cond.acquire()
        workers = iterator._workers
        kill(workers[0].pid)
        with pytest.raises(UserError, match="killed by signal") as error:
            list(shares)
        del error, iterator, shares
        wait_until(lambda: not any(worker.is_alive() for worker in workers))


class Ending(ImageArray):
    """Images whose worker ends."""

    def target(self, index):
        os._exit(3)


def test_worker_that_ends_by_itself_has_died():
    images = Ending(array(4).images, array(4).targets)
    with (
        time_limit(HANG),
        pytest.raises(UserError, match="exited unexpectedly with exit code 3"),
    ):
        list(loader(images))


def test_connection_closed_by_a_death_is_that_death():
    worker = SimpleNamespace(pid=7, exitcode=None)

    class Shares:
        _workers = (worker,)

        def __iter__(self):
            return self

        def __next__(self):
            worker.exitcode = -signal.SIGKILL
            raise ConnectionResetError("closed")

    with pytest.raises(UserError, match="pid 7 is killed by signal: Killed"):
        list(shares_of(Shares(), seconds=HANG))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            "DataLoader worker (pid 7) exited unexpectedly with exit code 1. Details are lost due "
            "to multiprocessing. Rerunning with num_workers=0 may give better error trace.",
            ("(pid 7 exited unexpectedly)",),
        ),
        ("DataLoader worker (pid(s) 7, 8) exited unexpectedly", ("(pid(s) 7, 8 exited",)),
        (
            "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent "
            "call last):\nRuntimeError: unable to allocate shared memory(shm) for file "
            "</torch_1_2_0>: No space left on device (28)\n",
            ("/dev/shm is full", "--shm-size", "--workers"),
        ),
    ],
)
def test_what_pytorch_says_of_lost_workers_is_understood(message, words):
    """Word for word what it raises where a test cannot bring it about."""
    for word in words:
        assert word in report_of(message)


def started(batches):
    """Return an iterator whose first batch has been taken, and its two workers."""
    before = workers_of(os.getpid())

    def workers():
        return [worker for worker in workers_of(os.getpid()) if worker not in before]

    iterator = iter(batches)
    next(iterator)
    wait_until(lambda: len(workers()) == 2)  # the first batch needs only one of them
    return iterator, workers()


class CountedObjects(ImageArray):
    def target(self, index):
        return gc.get_freeze_count()


def test_garbage_collector_of_a_worker_leaves_alone_what_it_was_born_with():
    """Else it writes to every object, of which the worker then holds a copy."""
    images = CountedObjects(array(2).images, array(2).targets)
    with time_limit(HANG):
        counts = [count for batch in loader(images) for count in batch.targets.tolist()]
    assert min(counts) > 10_000
    assert gc.get_freeze_count() < min(counts)


class NamedOnly(TransformedImages):
    """What needs the list of files, and nothing of the files."""

    def __getitem__(self, key):
        self.images.name(key.index)
        return Sample(torch.zeros(3, 1, 1, dtype=torch.uint8), [], self.images.target(key.index))


def private_megabytes(pid):
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) / 1024


@needs_proc
@pytest.mark.slow
def test_workers_share_the_list_of_files():
    """What each holds for itself hardly grows over an epoch of many files."""
    count = 300_000
    names = (
        f"n{number // 1000:08d}/n{number // 1000:08d}_{number}.JPEG" for number in range(count)
    )
    files = ImageFiles(((name, 0) for name in names), root="train")
    process = Process(0, 1, CPU)
    dataset = NamedOnly(files, transform=None, batch_transform=BatchTransform(), seed=0)
    batches = GlobalBatches(count, 100, process, shuffle_seed=0)
    iterator, workers = started(BatchLoader(dataset, batches, 2, process, seed=0))
    before = [private_megabytes(worker) for worker in workers]
    for _ in range(len(batches) - 20):  # before its end, where they leave
        next(iterator)
    growths = [private_megabytes(pid) - size for pid, size in zip(workers, before, strict=True)]
    iterator.close()
    assert max(growths) < 20


def send(name, pid):
    """Send a signal as another process than the one that the workers are of."""
    subprocess.run(["kill", f"-{name}", str(pid)], check=True)


@needs_proc
def test_workers_stay_when_everybody_is_told_to_stop(monkeypatch):
    # Nobody has to end them: they leave when there is nothing left to do.
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "terminate", lambda process: None)
    with time_limit(HANG):
        batches, workers = started(loader(array(40)))
        for worker in workers:
            for name in ("TERM", "INT", "TERM"):
                send(name, worker)
        assert len(list(batches)) == 39
        wait_until(lambda: not any(map(is_worker, workers)))


@needs_proc
def test_workers_are_born_deaf_to_stop_signals():
    """One may come before a worker has been set up."""
    with time_limit(HANG):
        batches, workers = started(loader(array(400)))
        for worker in workers:
            (line,) = (
                line
                for line in Path(f"/proc/{worker}/status").read_text().splitlines()
                if line.startswith("SigBlk:")
            )
            blocked = int(line.split()[1], 16)
            for number in (signal.SIGINT, signal.SIGTERM):
                assert blocked >> (number - 1) & 1
        batches.close()


def test_held_signals_come_later():
    came = []
    before = signal.signal(signal.SIGTERM, lambda *_: came.append("after"))
    try:
        with hold_stop_signals():
            signal.raise_signal(signal.SIGTERM)  # to this thread: pytest may have others
            came.append("in the block")
        assert came == ["in the block", "after"]
        os.kill(os.getpid(), signal.SIGTERM)
        assert came[2:] == ["after"]
    finally:
        signal.signal(signal.SIGTERM, before)


@needs_proc
def test_workers_of_a_pass_that_is_given_up_leave():
    with time_limit(HANG):
        batches, workers = started(loader(array(400)))
        batches.close()
        assert not any(map(is_worker, workers))


BUG = """
from tests.training.loading.test_workers import array, loader

if __name__ == "__main__":
    batches = iter(loader(array(400)))
    next(batches)
    raise RuntimeError("a bug of ours")
"""


def test_error_with_workers_about_ends_the_process():
    """Python then holds on to them, and ``multiprocessing`` waits for those it told to leave."""
    result = subprocess.run(
        [sys.executable, "-c", BUG], cwd=REPOSITORY, capture_output=True, text=True, timeout=HANG
    )
    assert result.returncode == 1
    assert result.stderr.rstrip().endswith("RuntimeError: a bug of ours")


@needs_proc
@pytest.mark.slow
def test_workers_of_a_killed_process_leave(tmp_path):
    """Also one that hangs, which does not look by itself whether there is anybody left."""
    with ExitStack() as stuck:
        with long_run(tmp_path, stuck=True) as run:
            wait_until(lambda: len(workers_of(run.pid)) == 2)
            workers = workers_of(run.pid)
            stuck.enter_context(reader_of(tmp_path / "data" / STUCK))
        try:
            wait_until(lambda: not any(map(is_worker, workers)))
        finally:
            for worker in workers:
                kill(worker)
