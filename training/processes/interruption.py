"""What the processes do after the same step: stop at a signal, or write a checkpoint in time."""

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

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


class Request(NamedTuple):
    """What a process asks for: to stop because of a signal, 0 for none; a checkpoint.

    The processes do what the largest of their requests says: a stop before all, with which goes a
    checkpoint anyway.
    """

    signum: int
    checkpoint: bool


@dataclass(frozen=True)
class Answer:
    """The largest request [1] of the processes as a number: on the CPU once it has arrived."""

    of_all: Tensor
    arrived: torch.cuda.Event | None

    def request(self) -> Request:
        if self.arrived is not None:
            self.arrived.synchronize()
        signum, checkpoint = divmod(int(self.of_all.item()), 2)
        return Request(signum, bool(checkpoint))


def never() -> bool:
    return False


@dataclass
class Interruption:
    """Lets the processes agree on the step after which a signal stops them, or a checkpoint is due.

    Attributes:
        process: this process.
        signals: the list of ``caught_stop_signals``, of this process.
        is_due: whether a checkpoint is to be written; asked once a call, it says so once each time.
    """

    process: Process
    signals: Sequence[int]
    is_due: Callable[[], bool] = never
    answer: Answer = field(init=False, default=Answer(torch.zeros(1), arrived=None))

    def check(self) -> bool:
        """Return whether a checkpoint is due, the same in every process.

        Every process must call it equally often, for instance after each step. With several
        processes the answer is that of the call before: waiting for the newest would keep a GPU
        from getting its next step while it is busy with this one.

        Raises:
            Interrupted: a signal has reached any of the processes.
        """
        if self.process.world_size == 1:
            request = self._request()
        else:
            before, self.answer = self.answer, self._ask()
            request = before.request()
        _raise_for(request.signum)
        return request.checkpoint

    def check_now(self) -> None:
        """Raise ``Interrupted`` after the answer of this call."""
        self.answer = self._ask()
        _raise_for(self.answer.request().signum)

    def _ask(self) -> Answer:
        signum, checkpoint = self._request()
        asked = torch.full((1,), 2 * signum + checkpoint, device=self.process.device)
        of_all = all_reduce_max(asked, self.process).to("cpu", non_blocking=True)
        arrived = torch.cuda.Event() if self.process.device.type == "cuda" else None
        if arrived is not None:
            arrived.record()
        return Answer(of_all, arrived)

    def _request(self) -> Request:
        return Request(self.signals[0] if self.signals else 0, self.is_due())


def _raise_for(signum: int) -> None:
    if signum:
        raise Interrupted(signum)


def die_of(signum: int) -> None:
    """End this process as ``signum`` does where nothing catches it."""
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)
