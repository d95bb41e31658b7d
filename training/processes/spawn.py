"""Processes that are spawned on this machine: their start, signals to them, their end."""

import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection

from training.errors import UserError
from training.processes.peer_failure import PeerFailure
from training.processes.stop_signals import STOP_SIGNALS, caught_stop_signals, hold_stop_signals

# After an error of one process the others notice that it left and leave too, tidily; one that
# does not notice within this time is killed.
SECONDS_TO_LEAVE = 10.0
SECONDS_BETWEEN_LOOKS = 0.1
STOP_CODES = tuple(128 + signum for signum in STOP_SIGNALS)


def run_spawned(
    target: Callable[..., None], arguments: Sequence[object], ranks: Sequence[int], way_on: str
) -> None:
    """Call ``target(local_rank, *arguments)`` in a process of its own for each of ``ranks``.

    The processes form groups of their own, so that a terminal's Ctrl-C reaches them only through
    this one. It passes a first SIGINT or SIGTERM on to each of them, and waits until all have
    left, however long that takes; at a second one it kills them. It also kills those that are left
    some seconds after one has failed. Outside the main thread, where Python allows no handlers,
    signals do what they did.

    Args:
        target: an importable function.
        arguments: what it takes beside its local rank, from 0; pickled.
        ranks: the numbers of the processes among those of all machines.
        way_on: ends the line about one that has died: what to do.

    Raises:
        UserError: what one of them raised, or that it died of a signal.
        SystemExit: they stopped in order, by ``SystemExit(143)`` or ``SystemExit(130)`` or because
            of the signal that was passed on: the same code. Or 1, where one failed otherwise; its
            traceback is then on the standard error.
    """
    # The resource tracker tidies up after a process that died; its warning would follow the error.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
    spawned: list[SpawnedProcess] = []
    with caught_stop_signals() as signals:
        try:
            for local_rank, rank in enumerate(ranks):
                spawned.append(SpawnedProcess(rank, target, (local_rank, *arguments)))
            _wait(spawned, signals)
        finally:
            for process in spawned:
                process.kill()
    _raise_for_ends(spawned, signals, way_on)


@dataclass(frozen=True)
class ReportedError:
    """The error that a process ends with, where it is one that a person can put right.

    Attributes:
        text: a line.
        peer_failed: the error follows from the end of another process.
        time: when it was raised, on the clock that the processes of a machine share.
    """

    text: str
    peer_failed: bool
    time: float


class SpawnedProcess:
    """A process that calls ``target(*arguments)``, from its start on.

    Attributes:
        rank: its number among the processes of all machines.
        reported: its error, once it has told it.
        was_killed: by ``kill``.
    """

    def __init__(
        self, rank: int, target: Callable[..., None], arguments: tuple[object, ...]
    ) -> None:
        self.rank = rank
        self.reported: ReportedError | None = None
        self.was_killed = False
        context = multiprocessing.get_context("spawn")
        self._receiver, sender = context.Pipe(duplex=False)
        start_method = multiprocessing.get_start_method()
        self._process = context.Process(
            target=_run_in_group, args=(sender, start_method, target, *arguments), name=str(rank)
        )
        resource_tracker.ensure_running()  # its start would let the signals through
        # One that came while the process imports would end it with a traceback, or be lost.
        with sender, hold_stop_signals():
            self._process.start()

    def __str__(self) -> str:
        return f"process {self.rank} (pid {self._process.pid})"

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the number of the signal that it died of."""
        return self._process.exitcode

    def is_running(self) -> bool:
        """Return whether it runs, after listening to it; leave nothing of it behind if it died.

        It is looked at and not waited for: the processes that it has started, such as a
        DataLoader's workers, may outlive it and hold open what tells of its end.
        """
        exit_code = self.exit_code
        if self.reported is None and self._receiver.poll():
            with suppress(EOFError):  # it has ended without any
                self.reported = self._receiver.recv()
        if exit_code is not None and exit_code < 0:
            self._kill_group()
        return exit_code is None

    def send(self, signum: int) -> None:
        os.kill(self._process.pid, signum)

    def kill(self) -> None:
        """End it if it runs, with what it has started, at once and even if it is stopped."""
        if self.exit_code is None:
            self.was_killed = True
            self._kill_group()
            self._process.kill()
            self._process.join()

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError):  # nothing is left of it, or it is not yet formed
            os.killpg(self._process.pid, signal.SIGKILL)

    def stop_code(self, signals: Sequence[int]) -> int | None:
        """Return the exit code that a stop in order comes to, after the signals that arrived.

        None where it has not ended so.
        """
        code = self.exit_code
        if self.was_killed:
            return 128 + signals[0] if len(signals) > 1 else None
        if code is not None and -code in signals:
            return 128 - code  # as a shell says it
        return code if code in STOP_CODES else None

    def has_failed(self, signals: Sequence[int]) -> bool:
        ended_well = self.exit_code in (None, 0) or self.stop_code(signals) is not None
        return self.reported is not None or not ended_well


def _wait(spawned: Sequence[SpawnedProcess], signals: Sequence[int]) -> None:
    """Return when all have ended, by themselves or killed."""
    running, passed_on, deadline = list(spawned), 0, math.inf
    while running := [process for process in running if process.is_running()]:
        if any(process.has_failed(signals) for process in spawned):
            deadline = min(deadline, time.monotonic() + SECONDS_TO_LEAVE)
        if len(signals) > 1 or time.monotonic() > deadline:
            for process in running:
                process.kill()
        elif len(signals) > passed_on:
            passed_on = 1
            for process in running:
                process.send(signals[0])
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _raise_for_ends(spawned: Sequence[SpawnedProcess], signals: Sequence[int], way_on: str) -> None:
    """Raise what explains the ends of ``spawned``, if not all have ended well.

    Where one fails, the others lose contact to it: that explains nothing, and comes last.
    """
    errors = [process.reported for process in spawned if process.reported is not None]
    first = min(errors, key=lambda each: (each.peer_failed, each.time), default=None)
    if first is not None and not first.peer_failed:
        raise UserError(first.text)
    codes = [process.stop_code(signals) for process in spawned]
    unexplained = [
        process
        for process, code in zip(spawned, codes, strict=True)
        if process.exit_code != 0 and not (process.reported or process.was_killed or code)
    ]
    for process in unexplained:
        if process.exit_code < 0:
            raise UserError(f"{process} {_cause_of_death(-process.exit_code)}; {way_on}")
    if unexplained:
        raise SystemExit(1)
    for code in codes:
        if code is not None:
            raise SystemExit(code)
    if first is not None:
        silent = [process for process in spawned if process.was_killed and process.reported is None]
        hung = [f"; {process} did not leave and was killed" for process in silent]
        raise UserError(first.text + "".join(hung))


def _cause_of_death(signum: int) -> str:
    hint = ", which the system sends when memory runs out" if signum == signal.SIGKILL else ""
    return f"died of signal {signum} ({signal.strsignal(signum)}){hint}"


def _run_in_group(
    sender: Connection, start_method: str, target: Callable[..., None], *arguments: object
) -> None:
    """Call ``target(*arguments)`` as a process of its own, in a process group."""
    os.setpgrp()
    # Python starts the children of a spawned process by spawn, too: a DataLoader's workers would
    # import PyTorch anew each epoch.
    multiprocessing.set_start_method(start_method, force=True)
    threading.Thread(target=_stop_after_parent, daemon=True).start()
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        target(*arguments)
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    except UserError as error:
        reported = ReportedError(str(error), isinstance(error, PeerFailure), time.monotonic())
        with suppress(BrokenPipeError):  # the command was killed: nobody is left to tell
            sender.send(reported)
        raise SystemExit(2) from error


def _stop_after_parent() -> None:
    """Stop this process as its parent would, if that is killed and cannot."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)
