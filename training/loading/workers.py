"""Worker processes that decode images: which signals end them, and what their end tells us."""

import functools
import gc
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from training.errors import UserError
from training.processes.stop_signals import STOP_SIGNALS, hold_stop_signals

SECONDS_BETWEEN_LOOKS = 1.0


def default_workers(beside_others: bool = False) -> int:
    """Return the number of workers that the CPUs keep busy which this process may use.

    Where others run ``beside`` it those of the machine: each process may be bound to some of them,
    and all have to come to the same number.
    """
    if hasattr(os, "sched_getaffinity") and not beside_others:  # a job may be given some of them
        return min(12, len(os.sched_getaffinity(0)))
    return min(12, os.cpu_count() or 1)


def worker_start() -> Callable[[int], None]:
    """Return the ``worker_init_fn`` for the ``DataLoader`` of this process.

    The objects that a worker has from its birth are left alone by its garbage collector: to look
    at one it writes to it, so that each worker would come to hold a copy of all of them, 80 MB.

    Ctrl-C reaches every process of a terminal, and Slurm's SIGTERM every process of a job's step.
    The workers then stay, for the one they work for to finish its step in order; those started in
    ``hold_stop_signals`` do from their birth on. A SIGTERM from that one ends them: this is how
    ``multiprocessing`` ends daemons, for which it then waits. So does that one's death, even if
    they hang.
    """
    return functools.partial(_start, os.getpid())


def _start(employer: int, worker: int) -> None:
    gc.freeze()
    if not hasattr(signal, "sigtimedwait"):  # macOS: nothing tells from whom a signal comes
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    threading.Thread(target=_leave_when_told, args=(employer,), daemon=True).start()


def _leave_when_told(employer: int) -> None:
    parent = os.getppid()  # the employer, or a server that forks for it and ends with it
    told_by = None
    while told_by != employer and os.getppid() == parent:
        told = signal.sigtimedwait({signal.SIGTERM}, SECONDS_BETWEEN_LOOKS)
        told_by = told and told.si_pid
    os._exit(0)


def shares_of(loader: DataLoader, seconds: float) -> Iterator[Any]:
    """Yield what ``loader`` does, and look meanwhile whether its worker processes live.

    PyTorch would raise a worker's death from the handler of SIGCHLD, wherever this process is at
    that moment: within a queue, say, whose lock then stays locked and holds up the process's end.
    Here no process gets that handler.

    Args:
        loader: with a ``timeout`` of SECONDS_BETWEEN_LOOKS, if it has workers.
        seconds: without a share that are an error.

    Raises:
        UserError: a worker died or hangs. Errors of its own code are left as they are.
    """
    signal_handling._SIGCHLD_handler_set = True
    with hold_stop_signals():
        shares: Any = iter(loader)
    if hasattr(shares, "_workers_done_event"):  # where there are processes
        shares._workers_done_event = _EventWithoutLock(shares._workers_done_event)
    end = time.monotonic() + seconds
    while True:
        try:
            share = next(shares)
        except StopIteration:
            return
        except Exception as error:
            if not str(error).startswith("DataLoader timed out"):
                _raise_for_lost(shares, error)
                raise
            if time.monotonic() > end:
                raise UserError(
                    f"--worker-timeout {seconds}: no worker process delivered a batch within "
                    f"{seconds} seconds; see that the storage of --data answers, or allow more time"
                ) from error
            continue
        yield share
        end = time.monotonic() + seconds


class _EventWithoutLock:
    """An event for other processes, of which one that is killed may hold the lock for ever."""

    def __init__(self, event: Any) -> None:
        self._event = event
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        self._event._flag.release()


def _raise_for_lost(shares: Iterator[Any], error: Exception) -> None:
    """Raise UserError if a lost worker is behind ``error``, which was not raised in its code.

    One that dies closes its connections, which is an error here, a moment before it counts as dead.
    """
    workers = getattr(shares, "_workers", ())
    if workers and "in DataLoader worker process" not in str(error):
        end = time.monotonic() + SECONDS_BETWEEN_LOOKS
        while time.monotonic() < end:
            for worker in workers:
                if worker.exitcode:
                    raise UserError(_died(f"pid {worker.pid} {_end(worker.exitcode)}")) from error
            time.sleep(0.05)
    report = report_of(str(error))
    if report is not None:
        raise UserError(report) from error


def _end(exit_code: int) -> str:
    if exit_code > 0:
        return f"exited unexpectedly with exit code {exit_code}"
    return f"is killed by signal: {signal.strsignal(-exit_code)}"


def report_of(message: str) -> str | None:
    """Return what to tell about a ``DataLoader``'s error, or None if no worker has died.

    Example:
        >>> report_of("DataLoader worker (pid 7) exited unexpectedly").partition(":")[0]
        'a worker process has died (pid 7 exited unexpectedly)'
        >>> report_of("Caught ValueError in DataLoader worker process 0.") is None
        True
    """
    if "unable to allocate shared memory" in message:
        return (
            "a worker process cannot pass its images on: /dev/shm is full; give it more room "
            "(containers: --shm-size), or lower --workers or --batch-size"
        )
    if died := re.match(r"DataLoader worker \((pid.*?)\) exited unexpectedly", message):
        return _died(f"{died[1]} exited unexpectedly")
    return None


def _died(how: str) -> str:
    return (
        f"a worker process has died ({how}): the machine may be short of memory, or /dev/shm full; "
        "give it more, or lower --workers"
    )
