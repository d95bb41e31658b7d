"""Runs commands under time limits, side by side or one after the other, with one log for all."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import BinaryIO

__all__ = ["INTERRUPT_SECONDS", "Outcome", "Phase", "Session", "Stage", "wait_until"]

REPOSITORY = Path(__file__).resolve().parents[1]

INTERRUPT_SECONDS = 5
"""What a stage that is interrupted at its limit has for telling how far it has come."""

READ_SECONDS = 1
"""For what a stage printed last to be read, where a process that left it holds the pipe open."""

LEAST_SECONDS = 5
"""No stage begins with less left of its phase."""

POLL_SECONDS = 0.05

HEAD_BYTES, TAIL_BYTES = 2**19, 2**18
"""Of what a stage prints, so much from the beginning is logged as it comes, and so much up to the
end when that is known, as the stage ends: twenty stages stay below 16 MiB."""


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Waits for the condition, ``seconds`` at most."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


@dataclass(frozen=True)
class Stage:
    """A command, and the seconds that it may take.

    Attributes:
        environment: variables beside this process's.
    """

    name: str
    command: Sequence[str | Path]
    seconds: float
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Phase:
    """Lists of stages: those of one list follow each other, the lists run side by side.

    Attributes:
        seconds: for all of it. A stage gets what is left of them if that is less than its own.
    """

    tracks: Sequence[Sequence[Stage]]
    seconds: float

    @property
    def longest(self) -> float:
        """Seconds after which the phase has ended, whatever its stages do."""
        return self.seconds + INTERRUPT_SECONDS + READ_SECONDS


@dataclass(frozen=True)
class Outcome:
    """How a stage ended: ``"passed"``, or ``"failed"`` or ``"not run"`` and why."""

    stage: str
    verdict: str
    seconds: float


class Session:
    """Runs phases, and logs each line that a stage prints as it comes, after the stage's name; of
    more than ``HEAD_BYTES`` the rest, shortened, when the stage ends.

    A context manager. Within the block, SIGINT and SIGTERM end the stages as their limits would,
    and no other begins. That there are handlers also makes SIGINT reach the stages: a shell's
    background job starts with SIGINT ignored and would hand that on, a handler is not handed on.

    Args:
        log: the file to write; a new one.
        wait: how to wait for a stage, as :func:`wait_until`.
    """

    def __init__(
        self, log: Path, wait: Callable[[Callable[[], bool], float], None] = wait_until
    ) -> None:
        self._file = log.open("wb", buffering=0)
        self._wait_until = wait
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> Session:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._file.close()

    def run(self, phase: Phase) -> list[Outcome]:
        """Runs every stage of the phase, whatever became of those before it."""
        deadline = time.monotonic() + phase.seconds

        def run_track(stages: Sequence[Stage]) -> list[Outcome]:
            return [self._run_stage(stage, deadline) for stage in stages]

        with ThreadPoolExecutor(len(phase.tracks)) as pool:
            return [outcome for track in pool.map(run_track, phase.tracks) for outcome in track]

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopped.set()

    def _run_stage(self, stage: Stage, deadline: float) -> Outcome:
        started = time.monotonic()
        seconds = min(stage.seconds, deadline - started)
        if self._stopped.is_set():
            verdict = "not run: the session was ended"
        elif seconds < min(stage.seconds, LEAST_SECONDS):
            verdict = "not run: no time was left"
        else:
            self._write(f"==== {stage.name}: begun\n".encode())
            verdict = self._verdict(stage, seconds)
        outcome = Outcome(stage.name, verdict, time.monotonic() - started)
        line = f"{stage.name}: {verdict} ({outcome.seconds:.0f} s)"
        self._write(f"==== {line}\n".encode())
        with self._lock:
            print(line, flush=True)
        return outcome

    def _verdict(self, stage: Stage, seconds: float) -> str:
        """Runs the stage's command from the repository, with its children, for ``seconds``."""
        try:
            process = subprocess.Popen(
                stage.command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **stage.environment},
            )  # fmt: skip
        except OSError as error:
            return f"not run: {error}"
        reader = threading.Thread(
            target=self._copy, args=(f"{stage.name}| ".encode(), process.stdout), daemon=True
        )
        reader.start()
        ended = self._wait(process, seconds)
        if not ended:
            os.killpg(process.pid, signal.SIGINT)
            self._wait_until(lambda: _has_ended(process), INTERRUPT_SECONDS)
        # Not waited for, the process keeps its group's number to itself even if it has ended.
        os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        reader.join(READ_SECONDS)
        if self._stopped.is_set() and not ended:
            return "failed: the session was ended"
        if not ended:
            return f"failed: not done in {seconds:.0f} s"
        return "passed" if code == 0 else f"failed: exit code {code}"

    def _wait(self, process: subprocess.Popen, seconds: float) -> bool:
        """Whether the process has ended by itself."""
        self._wait_until(lambda: self._stopped.is_set() or _has_ended(process), seconds)
        return _has_ended(process)

    def _copy(self, mark: bytes, stream: BinaryIO) -> None:
        """Logs the stream's lines, each after ``mark``; of too many, the first and the last.

        The last are kept here until the stream ends.
        """
        head, left_out = HEAD_BYTES, 0
        tail: deque[bytes] = deque()
        tail_bytes = 0
        for line in stream:
            line = mark + line.rstrip(b"\n") + b"\n"
            if len(line) <= head:
                self._write(line)
                head -= len(line)
                continue
            head = 0
            tail.append(line)
            tail_bytes += len(line)
            while tail_bytes > TAIL_BYTES:
                tail_bytes -= len(tail.popleft())
                left_out += 1
        if left_out:
            self._write(mark + f"[{left_out} lines left out]\n".encode())
        self._write(b"".join(tail))

    def _write(self, text: bytes) -> None:
        with self._lock:
            if not self._file.closed:
                self._file.write(text)


def _has_ended(process: subprocess.Popen) -> bool:
    """Whether the process has ended; if so, its number is still its own."""
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, process.pid, options) is not None
