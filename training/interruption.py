"""Stopping in order: after the first SIGTERM or SIGINT a run ends with the step that it is in."""

import signal
import threading
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


class Interruption:
    """While it is entered, a first SIGTERM or SIGINT waits for ``check``; a second one kills.

    Args:
        process: this process.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self.received = 0
        self.last_answer: Tensor | None = None
        self.answered: torch.cuda.Event | None = None

    def check(self) -> None:
        """Raise ``Interrupted`` if a signal has reached any of the processes.

        Every process must call it equally often, for instance after each step. With several
        processes the answer is that of the call before: waiting for the newest would keep a GPU
        from getting its next step while it is busy with this one.
        """
        signum = self.received if self.process.world_size == 1 else self._received_by_any()
        if signum:
            raise Interrupted(signum)

    def _received_by_any(self) -> int:
        before, answered = self.last_answer, self.answered
        asked = torch.full((1,), self.received, device=self.process.device)
        self.last_answer = all_reduce_max(asked, self.process).to("cpu", non_blocking=True)
        if self.process.device.type == "cuda":
            self.answered = torch.cuda.Event()
            self.answered.record()
            if answered is not None:
                answered.synchronize()
        return 0 if before is None else int(before.item())

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
