"""Stopping in order: after the first SIGTERM or SIGINT a run ends with the step that it is in."""

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from training.processes.ranks import Process, all_reduce_max


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


@dataclass
class Interruption:
    """Lets the processes agree on the step after which a signal stops them.

    Attributes:
        process: this process.
        signals: the list of ``caught_stop_signals``, of this process.
    """

    process: Process
    signals: Sequence[int]
    answer: Answer = field(init=False, default=Answer(torch.zeros(1), arrived=None))

    def check(self) -> None:
        """Raise ``Interrupted`` if a signal has reached any of the processes.

        Every process must call it equally often, for instance after each step. With several
        processes the answer is that of the call before: waiting for the newest would keep a GPU
        from getting its next step while it is busy with this one.
        """
        if self.process.world_size == 1:
            _raise_for(self._received())
            return
        before, self.answer = self.answer, self._ask()
        _raise_for(before.signum())

    def check_now(self) -> None:
        """Do the same with the answer of this call."""
        self.answer = self._ask()
        _raise_for(self.answer.signum())

    def _ask(self) -> Answer:
        received = torch.full((1,), self._received(), device=self.process.device)
        of_all = all_reduce_max(received, self.process).to("cpu", non_blocking=True)
        arrived = torch.cuda.Event() if self.process.device.type == "cuda" else None
        if arrived is not None:
            arrived.record()
        return Answer(of_all, arrived)

    def _received(self) -> int:
        return self.signals[0] if self.signals else 0


def die_of(signum: int) -> None:
    """End this process as ``signum`` does where nothing catches it."""
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)
