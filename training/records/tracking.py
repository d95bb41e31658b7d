"""Trackers that may fail: what they have not been told for a while they are told later."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from training.records.going_on import going_on
from training.records.histograms import Histogram
from training.records.history import EpochRecord
from training.records.steps import StepRecord
from training.records.tracker import Ending, Tracker

LambdasByEpoch = Mapping[int, Mapping[str, Histogram]]


@dataclass
class Tracking:
    """Tells a tracker what there is to tell; what it raises is a line on the standard error.

    Attributes:
        name: of the tracker, for that line.
        open: makes the tracker; is tried again after each epoch until it succeeds.
    """

    name: str
    open: Callable[[], Tracker]
    _tracker: Tracker | None = field(default=None, init=False)
    _ails: bool = field(default=False, init=False)

    def begin(self) -> None:
        """Open it now, rather than when there is something to tell."""
        with going_on(f"{self.name}: cannot be told of the run") as outcome:
            self._opened()
        self._ails = outcome.error is not None

    def add_step(self, record: StepRecord) -> None:
        """Tell it ``record``, unless something has failed in this epoch already."""
        if self._ails:
            return
        with going_on(f"{self.name}: cannot be told of the run") as outcome:
            self._opened().add_step(record)
        self._ails = outcome.error is not None

    def add_epoch(
        self,
        history: Sequence[EpochRecord],
        lambdas_of_all: Callable[[], LambdasByEpoch],
        lambdas: Mapping[str, Histogram],
    ) -> None:
        """Tell it the last epoch of ``history``, and those before that it does not know.

        Args:
            history: of all epochs.
            lambdas_of_all: finds λ by epoch and layer where earlier epochs are to be told.
            lambdas: those after the last epoch.
        """
        with going_on(f"{self.name}: cannot be told of the run") as outcome:
            tracker = self._opened()
            untold = [place for place, each in enumerate(history[:-1]) if each.epoch > tracker.told]
            found = lambdas_of_all() if untold else {}
            for place in untold:
                tracker.add_epoch(history[: place + 1], found.get(history[place].epoch, {}))
            tracker.add_epoch(history, lambdas)
        self._ails = outcome.error is not None

    def close(self, ending: Ending) -> None:
        """Tell it, if it was ever told anything, how the run ends."""
        if self._tracker is not None:
            with going_on(f"{self.name}: cannot be told of the run"):
                self._tracker.close(ending)

    def _opened(self) -> Tracker:
        if self._tracker is None:
            self._tracker = self.open()
        return self._tracker
