"""Worker processes that decode images: which signals end them, and what their end tells us."""

import functools
import gc
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from training.errors import UserError
from training.processes.stop_signals import STOP_SIGNALS

SECONDS_BETWEEN_LOOKS = 5.0


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


@contextmanager
def lost_workers_reported() -> Iterator[None]:
    """Raise UserError for a worker that died or hangs; other errors are left as they are.

    PyTorch raises the death of a worker from the handler of SIGCHLD, wherever the process is at
    that moment. So this goes around all that is done while workers run.
    """
    try:
        yield
    except Exception as error:
        report = _report_of_chain(error)
        if report is None:
            raise
        raise UserError(report) from error


def _report_of_chain(error: BaseException | None) -> str | None:
    """:func:`report_of` of the error, or of what it was raised from or came upon.

    What meets the handler's error may raise another one that says less: the loader from it, or
    Python where it is in the middle of starting a thread. The first one says most.
    """
    report, seen = None, set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        report = report_of(str(error)) or report
        error = error.__cause__ or error.__context__
    return report


def report_of(message: str) -> str | None:
    """Return what to tell about a ``DataLoader``'s error, or None if no worker was lost.

    Example:
        >>> report_of("DataLoader timed out after 600 seconds").partition(":")[0]
        '--worker-timeout 600'
        >>> report_of("Caught ValueError in DataLoader worker process 0.") is None
        True
    """
    if "unable to allocate shared memory" in message:
        return (
            "a worker process cannot pass its images on: /dev/shm is full; give it more room "
            "(containers: --shm-size), or lower --workers or --batch-size"
        )
    if died := re.match(
        r"DataLoader worker \((pid.*?)\) (is killed by signal: [\w ]+|exited unexpectedly)", message
    ):
        return (
            f"a worker process has died ({died[1]} {died[2]}): the machine may be short of memory, "
            "or /dev/shm full; give it more, or lower --workers"
        )
    if late := re.match(r"DataLoader timed out after (\S+) seconds", message):
        return (
            f"--worker-timeout {late[1]}: no worker process delivered a batch within {late[1]} "
            "seconds; see that the storage of --data answers, or allow more time"
        )
    return None
