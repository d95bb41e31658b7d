"""``--log wandb``: a run of Weights & Biases, as its own library keeps it."""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.errors import UserError
from training.records.histograms import Histogram
from training.records.history import COLUMNS, EpochRecord
from training.records.remembered import Remembered, recall, remember
from training.records.step_axis import StepAxis
from training.records.steps import StepRecord
from training.records.tracker import Ending, numbers_of_best, numbers_of_lambdas

NAME = "wandb"
DEFAULT_PROJECT = "gfgp-cupy"
EXIT_CODES = {Ending.FINISHED: 0, Ending.STOPPED: 130, Ending.FAILED: 1}


def check_wandb() -> None:
    """Raise UserError if the package is missing."""
    try:
        import wandb  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--log wandb: the package cannot be used ({error}): pip install wandb, or leave the "
            "option out"
        ) from error


class WandbRun:
    """Tells Weights & Biases a run; ``WANDB_MODE``, ``WANDB_PROJECT`` and the rest are obeyed.

    Args:
        out_dir: the run's folder, in which the library keeps its own files in ``wandb/``, and we
            the run's id.
        settings: of the run, plain values.
        axis: numbers its batches, and knows how many epochs it has had; the library's own steps
            are batches, so that a run goes on from an earlier one of them without telling anything
            twice.
        resumed: it goes on from a checkpoint.
    """

    def __init__(
        self,
        out_dir: Path,
        settings: Mapping[str, Any],
        axis: StepAxis,
        resumed: bool,
    ) -> None:
        import wandb

        self.out_dir = out_dir
        self.axis = axis
        before = recall(out_dir, NAME, axis.epochs) if resumed else None
        self.told = 0 if before is None else before.epoch
        self.run = wandb.init(
            id=secrets.token_hex(4) if before is None else before.id,
            resume="allow",
            dir=str(out_dir),
            name=None if "WANDB_NAME" in os.environ else out_dir.resolve().name,
            project=None if "WANDB_PROJECT" in os.environ else DEFAULT_PROJECT,
            settings=wandb.Settings(console="off"),
        )
        self.run.config.update(dict(settings), allow_val_change=True)
        for name in (*COLUMNS[1:], "lambda/*"):
            self.run.define_metric(name, step_metric="epoch")
        self.run.define_metric("within_epochs/*", step_metric="within_epochs/step")
        remember(out_dir, NAME, Remembered(self.run.id, self.told))

    def add_step(self, record: StepRecord) -> None:
        """Log its numbers under ``within_epochs/``, over the number of batches."""
        numbers = {f"within_epochs/{name}": value for name, value in asdict(record).items()}
        self.run.log(numbers, step=record.step)

    def add_epoch(self, history: Sequence[EpochRecord], lambdas: Mapping[str, Histogram]) -> None:
        """Log its numbers and λ, over the epochs; the best epoch's go into the summary."""
        import wandb

        known = {
            name: value for name, value in asdict(history[-1]).items() if not math.isnan(value)
        }
        self.run.log(
            {
                **known,
                **numbers_of_lambdas(lambdas),
                **{
                    f"lambda/{layer}/histogram": wandb.Histogram(np_histogram=each.contiguous())
                    for layer, each in lambdas.items()
                    if each.total
                },
            },
            step=self.axis.at(history[-1].epoch),
        )
        self.run.summary.update(numbers_of_best(history))
        self.told = history[-1].epoch
        remember(self.out_dir, NAME, Remembered(self.run.id, self.told))

    def close(self, ending: Ending) -> None:
        """Let the library send what is left."""
        self.run.finish(exit_code=EXIT_CODES[ending])
