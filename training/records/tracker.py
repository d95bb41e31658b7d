"""What keeps the numbers of a run: CSV files, TensorBoard, Weights & Biases, MLflow."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Protocol

from training.records.histograms import Histogram
from training.records.history import EpochRecord, best_record
from training.records.steps import StepRecord

QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}


class Ending(Enum):
    """How a start of a run ends."""

    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"


class Tracker(Protocol):
    """Is told a run's numbers as they come; each method may raise whatever its library does.

    Attributes:
        told: the last epoch that it knows of.
    """

    told: int

    def add_step(self, record: StepRecord) -> None:
        """Take the numbers of a moment within an epoch."""

    def add_epoch(self, history: Sequence[EpochRecord], lambdas: Mapping[str, Histogram]) -> None:
        """Take the numbers of the last epoch of ``history``, and λ by layer after it."""

    def close(self, ending: Ending) -> None:
        """Be told nothing any more."""


def numbers_of_best(history: Sequence[EpochRecord]) -> dict[str, float]:
    """Return the best epoch so far and its errors."""
    best = best_record(history)
    return {
        "best_epoch": best.epoch,
        "best_val_err1": best.best_val_err1,
        "best_val_err5": best.best_val_err5,
    }


def numbers_of_lambdas(lambdas: Mapping[str, Histogram]) -> dict[str, float]:
    """Return the quantiles of each layer's λ, by names such as ``lambda/pool1/median``."""
    return {
        f"lambda/{layer}/{name}": value
        for layer, histogram in lambdas.items()
        for name, value in zip(QUANTILES, histogram.quantiles([*QUANTILES.values()]), strict=True)
        if histogram.total
    }
