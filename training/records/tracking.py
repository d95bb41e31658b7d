"""Trackers that may fail: what they have not been told for a while they are told later."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from training.records.going_on import going_on
from training.records.histograms import Histogram
from training.records.history import EpochRecord
from training.records.steps import StepRecord
from training.records.tracker import Ending, Tracker

REST = 10
"""How many times as long as a try took that failed it takes until the next one."""


@dataclass
class Tracking:
    """Tells a tracker what there is to tell; what it raises is a line on the standard error.

    A failure may take minutes, as where a service does not answer. So the next try comes at the
    end of an epoch after ten times as long, or where the run has had its last one.

    Attributes:
        name: of the tracker, for that line.
        open: makes the tracker.
        find_lambdas: finds λ by epoch and layer, where earlier epochs are to be told.
    """

    name: str
    open: Callable[[], Tracker]
    find_lambdas: Callable[[], Mapping[int, Mapping[str, Histogram]]]
    _tracker: Tracker | None = field(default=None, init=False)
    _history: Sequence[EpochRecord] = field(default=(), init=False)
    _ails: bool = field(default=False, init=False)
    _rests_until: float = field(default=-math.inf, init=False)

    def begin(self, history: Sequence[EpochRecord]) -> None:
        """Open it, and tell it what it does not know of a run that has had ``history``."""
        with self._noting_failure():
            self._tell(history)

    def add_step(self, record: StepRecord) -> None:
        """Tell it ``record``, unless it has not been told of an epoch before."""
        if not self._ails:
            with self._noting_failure():
                self._opened().add_step(record)

    def add_epoch(self, history: Sequence[EpochRecord], lambdas: Mapping[str, Histogram]) -> None:
        """Tell it the last epoch of ``history``, and those before that it does not know.

        Args:
            history: of all epochs.
            lambdas: those after the last one, by layer.
        """
        self._history = history
        if time.monotonic() >= self._rests_until:
            with self._noting_failure():
                self._tell(history[:-1])
                self._opened().add_epoch(history, lambdas)

    def close(self, ending: Ending) -> None:
        """Tell it the rest, and how the run ends.

        One that has just failed is let be where the run is stopped, for that must not take long.
        """
        if self._ails and ending is not Ending.FINISHED:
            return
        with self._noting_failure():
            self._tell(self._history)
            self._opened().close(ending)

    def _tell(self, history: Sequence[EpochRecord]) -> None:
        tracker = self._opened()
        untold = [place for place, each in enumerate(history) if each.epoch > tracker.told]
        found = self.find_lambdas() if untold else {}
        for place in untold:
            tracker.add_epoch(history[: place + 1], found.get(history[place].epoch, {}))

    @contextmanager
    def _noting_failure(self) -> Iterator[None]:
        start = time.monotonic()
        with going_on(f"{self.name}: cannot be told of the run") as outcome:
            yield
        self._ails = outcome.error is not None
        if self._ails:
            now = time.monotonic()
            self._rests_until = now + REST * (now - start)

    def _opened(self) -> Tracker:
        if self._tracker is None:
            self._tracker = self.open()
        return self._tracker
