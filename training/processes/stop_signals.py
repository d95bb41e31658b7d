"""The signals that ask a run to stop: to catch them, and to hold them back for a while."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A signal may be sent to a process and to its group, by the command `timeout` for instance.
SECONDS_OF_ONE_SIGNAL = 1.0


@contextmanager
def caught_stop_signals(second: Callable[[int], None] | None = None) -> Iterator[list[int]]:
    """Yield a list that stop signals are added to as they arrive, in place of what they do.

    What arrives within a second of the first one is taken for the same. Outside the main thread,
    where Python allows no handlers, the list stays empty and signals do what they did.

    Args:
        second: called with any signal after the first one.
    """
    arrived: list[int] = []
    first = 0.0

    def note(signum: int, frame: FrameType | None) -> None:
        nonlocal first
        if not arrived:
            first = time.monotonic()
        elif time.monotonic() - first < SECONDS_OF_ONE_SIGNAL:
            return
        arrived.append(signum)
        if len(arrived) > 1 and second is not None:
            second(signum)

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {each: signal.signal(each, note) for each in STOP_SIGNALS}
    try:
        yield arrived
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextmanager
def hold_stop_signals() -> Iterator[None]:
    """Let stop signals wait for the end of the block, in this thread.

    A process that the thread starts in the block is born so: they wait until it lets them through.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
