"""Worker processes of a ``DataLoader``, found in ``/proc``, and a limit on the time of a test."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="finds processes in /proc"
)


def children(pid: int) -> list[int]:
    """Return the processes that the main thread of ``pid`` has started; none if it is gone."""
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(child) for child in listed.split()]


def workers_of(pid: int) -> list[int]:
    """Return the workers that decode images for the process ``pid``."""
    return [child for child in children(pid) if is_worker(child)]


def is_worker(pid: int) -> bool:
    """Whether ``pid`` is a worker that runs; PyTorch gives it its name once it is set up."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return "Name:\tpt_data_worker" in status and "State:\tZ" not in status


def kill(pid: int) -> None:
    """Kill a process that may have ended by now."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in the block if it takes longer."""

    def late(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
