"""Stopping in order: after the first SIGTERM or SIGINT a run ends with the step that it is in."""

import signal
import threading
from dataclasses import dataclass
from types import FrameType, TracebackType

import torch
from torch import Tensor

from training.distributed import Process, all_reduce_max

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(Exception):
    """A signal asks the run to stop; raised in every process after the same step."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """What a shell reports of a command that the signal ended: 143 or 130."""
        return 128 + self.signum


@dataclass(frozen=True)
class Answer:
    """The signal [1] that any process has received, 0 for none: on the CPU once it has arrived."""

    of_all: Tensor
    arrived: torch.cuda.Event | None

    def signum(self) -> int:
        if self.arrived is not None:
            self.arrived.synchronize()
        return int(self.of_all.item())


def _raise_for(signum: int) -> None:
    if signum:
        raise Interrupted(signum)


class Interruption:
    """While it is entered, a first SIGTERM or SIGINT waits for ``check``; a second one kills.

    Args:
        process: this process.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self.received = 0
        self.answer = Answer(torch.zeros(1, dtype=torch.int64), arrived=None)

    def check(self) -> None:
        """Raise ``Interrupted`` if a signal has reached any of the processes.

        Every process must call it equally often, for instance after each step. With several
        processes the answer is that of the call before: waiting for the newest would keep a GPU
        from getting its next step while it is busy with this one.
        """
        if self.process.world_size == 1:
            _raise_for(self.received)
            return
        before, self.answer = self.answer, self._ask()
        _raise_for(before.signum())

    def check_now(self) -> None:
        """Do the same with the answer of this call."""
        self.answer = self._ask()
        _raise_for(self.answer.signum())

    def _ask(self) -> "Answer":
        received = torch.full((1,), self.received, device=self.process.device)
        of_all = all_reduce_max(received, self.process).to("cpu", non_blocking=True)
        arrived = torch.cuda.Event() if self.process.device.type == "cuda" else None
        if arrived is not None:
            arrived.record()
        return Answer(of_all, arrived)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.received = signum
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    def __enter__(self) -> "Interruption":
        # Python lets no other thread set handlers, nor would signals reach it.
        self.handlers = {}
        if threading.current_thread() is threading.main_thread():
            self.handlers = {each: signal.signal(each, self._note) for each in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for each, handler in self.handlers.items():
            signal.signal(each, handler)
