"""``--log mlflow``: a run of MLflow, as its own library keeps it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.errors import UserError
from training.records.histograms import Histogram
from training.records.history import EpochRecord
from training.records.remembered import Remembered, recall, remember
from training.records.step_axis import StepAxis
from training.records.steps import StepRecord
from training.records.tracker import Ending, numbers_of_best, numbers_of_lambdas

NAME = "mlflow"
DEFAULT_EXPERIMENT = "gfgp-cupy"
LONGEST_PARAM = 500
STATUS = {Ending.FINISHED: "FINISHED", Ending.STOPPED: "KILLED", Ending.FAILED: "FAILED"}


def check_mlflow() -> None:
    """Raise UserError if the package is missing."""
    try:
        import mlflow  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--log mlflow: the package cannot be used ({error}): pip install mlflow, or leave the "
            "option out"
        ) from error


class MlflowRun:
    """Tells MLflow a run, where ``MLFLOW_TRACKING_URI`` says; see its documentation.

    Args:
        out_dir: the run's folder, in which the run's id is kept.
        settings: of the run, plain values.
        axis: knows how many epochs it has had.
        resumed: it goes on from a checkpoint.
    """

    def __init__(
        self,
        out_dir: Path,
        settings: Mapping[str, Any],
        axis: StepAxis,
        resumed: bool,
    ) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self.out_dir = out_dir
        self.client = MlflowClient()
        before = recall(out_dir, NAME, axis.epochs) if resumed else None
        if before is None:
            run = self.client.create_run(self._experiment(), run_name=out_dir.resolve().name)
            self.id, self.told = run.info.run_id, 0
            params = [Param(name, str(value)[:LONGEST_PARAM]) for name, value in settings.items()]
            self.client.log_batch(self.id, params=params)
        else:
            self.id, self.told = before.id, before.epoch
            self.client.update_run(self.id, status="RUNNING")
        remember(out_dir, NAME, Remembered(self.id, self.told))

    def add_step(self, record: StepRecord) -> None:
        """Log its numbers under ``within_epochs/``, at the step that is the number of batches."""
        numbers = {f"within_epochs/{name}": value for name, value in asdict(record).items()}
        self._log(numbers, record.step)

    def add_epoch(self, history: Sequence[EpochRecord], lambdas: Mapping[str, Histogram]) -> None:
        """Log its numbers, λ's quantiles and the best so far, at the step of the epoch's number."""
        of_epoch = asdict(history[-1]) | numbers_of_lambdas(lambdas)
        self._log(of_epoch | numbers_of_best(history), history[-1].epoch)
        self.told = history[-1].epoch
        remember(self.out_dir, NAME, Remembered(self.id, self.told))

    def close(self, ending: Ending) -> None:
        """Tell how the run ends."""
        self.client.set_terminated(self.id, STATUS[ending])

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", DEFAULT_EXPERIMENT)
        found = self.client.get_experiment_by_name(name)
        return self.client.create_experiment(name) if found is None else found.experiment_id

    def _log(self, numbers: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = round(time.time() * 1000)
        self.client.log_batch(
            self.id,
            metrics=[
                Metric(name, float(value), now, step)
                for name, value in numbers.items()
                if not math.isnan(value)
            ],
        )
