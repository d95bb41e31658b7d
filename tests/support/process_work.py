"""What processes do instead of training, so that faults can be brought about at known points.

``python -m tests.support.process_work WORK OPTIONS`` is ``train_imagenet.py OPTIONS`` with that
work.
"""

import atexit
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

import train_imagenet
import training.command
from training.processes import spawn
from training.processes.ranks import Process, all_reduce_max
from training.settings import Settings

# Longer than any test waits; what is left of a failed test does not stay for ever.
LIFETIME_SECONDS = 600
# How long a process may take to leave after an error, in place of spawn.SECONDS_TO_LEAVE.
SECONDS_TO_LEAVE = 1.0


def talk(settings: Settings, process: Process) -> None:
    """Add numbers up with the other processes, on and on."""
    note(settings, process, "pid", os.getpid())
    end = time.monotonic() + LIFETIME_SECONDS
    while time.monotonic() < end:
        all_reduce_max(torch.ones(1), process)
        time.sleep(0.01)


def strike(settings: Settings, process: Process, victim: int, signum: int) -> None:
    """Send ``signum`` to the process ``victim`` once all are at work."""
    dist.barrier()
    if process.rank == victim:
        note(settings, process, "pid", os.getpid())
        os.kill(os.getpid(), signum)
    talk(settings, process)


def fail(settings: Settings, process: Process) -> None:
    """Raise an error that is a bug's, in process 1."""
    dist.barrier()
    if process.rank == 1:
        raise RuntimeError("a bug")
    talk(settings, process)


def leave(settings: Settings, process: Process) -> None:
    """Leave once all have met: who is still connecting would take it for a death."""
    dist.barrier()


def stop(settings: Settings, process: Process) -> None:
    """Work until a signal has reached all of the processes; the main one then takes its time."""
    received = torch.zeros(1, dtype=torch.int64)
    catch(settings, process, received)
    note(settings, process, "pid", os.getpid())
    while not all_reduce_max(received.clone(), process):
        time.sleep(0.01)
    while not received:  # another process has had it first
        time.sleep(0.01)
    if process.is_main:
        time.sleep(3 * SECONDS_TO_LEAVE)
    note(settings, process, "left", int(received))
    atexit.register(lambda: note(settings, process, "in a group", int(dist.is_initialized())))
    raise SystemExit(128 + int(received))


def stay(settings: Settings, process: Process) -> None:
    """Work on, whatever signals come."""
    catch(settings, process, torch.zeros(1))
    talk(settings, process)


def expect_start_method(local_rank: int, expected: str) -> None:
    """Raise AssertionError if this process starts others in another way."""
    assert multiprocessing.get_start_method() == expected


def catch(settings: Settings, process: Process, received: torch.Tensor) -> None:
    def handle(signum: int, frame: object) -> None:
        received.fill_(signum)
        note(settings, process, "signal", signum)

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, handle)


def note(settings: Settings, process: Process, what: str, number: int) -> None:
    """Add a line to the file of ``what`` of this process."""
    with open(Path(settings.out_dir, f"{what}{process.rank}"), "a") as file:
        file.write(f"{number}\n")


def instead_of_training(work: Callable[[Settings, Process], None], options: list[str]) -> int:
    """Be ``train_imagenet.py`` with that work; return the exit code."""
    spawn.SECONDS_TO_LEAVE = SECONDS_TO_LEAVE
    training.command.train_or_evaluate = work
    return train_imagenet.main(options)


if __name__ == "__main__":
    sys.exit(instead_of_training(globals()[sys.argv[1]], sys.argv[2:]))
