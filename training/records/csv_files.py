"""The numbers of a run as text, which everything else can be made of: log.csv and lambdas.csv."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from training.records.going_on import going_on
from training.records.histograms import Histogram
from training.records.history import LOG_NAME, EpochRecord, write_log
from training.records.lambdas import LAMBDAS_NAME, write_lambdas
from training.records.steps import StepRecord
from training.records.tracker import Ending


class CsvFiles:
    """The tracker of every run; each epoch it writes its files anew."""

    told = 0

    def __init__(self, out_dir: Path) -> None:
        self.log = out_dir / LOG_NAME
        self.lambdas = out_dir / LAMBDAS_NAME

    def add_step(self, record: StepRecord) -> None:
        """Do nothing."""

    def add_epoch(self, history: Sequence[EpochRecord], lambdas: Mapping[str, Histogram]) -> None:
        """Write both files, or say which cannot be; later epochs of an abandoned run go."""
        with going_on(f"cannot write {self.log}"):
            write_log(history, self.log)
        with going_on(f"cannot write {self.lambdas}"):
            write_lambdas(lambdas, history[-1].epoch, self.lambdas)

    def rewind(self, history: Sequence[EpochRecord]) -> None:
        """Leave no epoch but those of ``history``: a run may have begun before later ones."""
        if not history:
            return
        with going_on(f"cannot write {self.log}"):
            write_log(history, self.log)
        with going_on(f"cannot write {self.lambdas}"):
            write_lambdas({}, history[-1].epoch + 1, self.lambdas)

    def close(self, ending: Ending) -> None:
        """Do nothing."""
