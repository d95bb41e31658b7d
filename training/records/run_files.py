"""The files of ``--out-dir`` beside the checkpoints, and what each of them is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from training.records.bad_images import BAD_IMAGES_NAME, list_bad_images
from training.records.config import CONFIG_NAME, RunConfig, write_config
from training.records.csv_files import CsvFiles
from training.records.figures import Figures
from training.records.going_on import going_on
from training.records.histograms import Histogram
from training.records.history import EpochRecord
from training.records.steps import StepRecord
from training.records.tracker import Ending
from training.records.tracking import Tracking


@dataclass
class RunFiles:
    """Keeps the files of a training run; it is for the main process.

    Making it writes nothing, and what cannot be written is a line on the standard error. A run
    that fails before its first epoch ends leaves log.csv, lambdas.csv, config.json and the
    pictures as they were.

    An epoch's files are written in two parts. A run that is killed before its checkpoint, which
    belongs in between, repeats the epoch and writes the same again; one that is killed after it
    tells the trackers of the epoch when it goes on, and draws it with the next one.

    Attributes:
        out_dir: the folder, which is there.
        config: of the run.
        trackers: what is told of the run beside the CSV files.
        figures: draws it.
        resumed: it goes on from a checkpoint.
    """

    out_dir: Path
    config: RunConfig
    trackers: Sequence[Tracking]
    figures: Figures
    resumed: bool
    csv_files: CsvFiles = field(init=False)
    _begun: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.csv_files = CsvFiles(self.out_dir)

    def begin(self, history: Sequence[EpochRecord]) -> None:
        """Let the trackers know of the run, which has had the epochs of ``history``."""
        for tracker in self.trackers:
            tracker.begin(history)

    def add_step(self, record: StepRecord) -> None:
        """Pass on the numbers of a moment within an epoch."""
        for tracker in self.trackers:
            tracker.add_step(record)

    def write_epoch(
        self,
        history: Sequence[EpochRecord],
        lambdas: Mapping[str, Histogram],
        bad_images: Mapping[str, str],
    ) -> None:
        """Write, as text, what the last epoch of ``history`` came to.

        Args:
            history: of all epochs.
            lambdas: those after the last one, by layer.
            bad_images: the reasons by name of those that it went without.
        """
        self._begin(bad_images)
        self.csv_files.add_epoch(history, lambdas)

    def show_epoch(self, history: Sequence[EpochRecord], lambdas: Mapping[str, Histogram]) -> None:
        """Tell the trackers the same, and begin to draw it if a picture is due."""
        for tracker in self.trackers:
            tracker.add_epoch(history, lambdas)
        self.figures.update(history)

    def write_partial_epoch(
        self, history: Sequence[EpochRecord], bad_images: Mapping[str, str]
    ) -> None:
        """Write what there is where an epoch is left before its end."""
        self._begin(bad_images)
        self.csv_files.rewind(history)

    def close(self, ending: Ending) -> None:
        """Draw the last epoch, and let the trackers know that there is no more to come."""
        self.figures.close()
        for tracker in self.trackers:
            tracker.close(ending)

    def _begin(self, bad_images: Mapping[str, str]) -> None:
        """Write config.json, the first time, and the list of bad images."""
        if not self._begun:
            with going_on(f"cannot write {CONFIG_NAME}") as outcome:
                write_config(self.config, self.out_dir / CONFIG_NAME, self.resumed)
            self._begun = outcome.error is None
        with going_on(f"cannot write {BAD_IMAGES_NAME}"):
            list_bad_images(bad_images, self.out_dir / BAD_IMAGES_NAME)
