"""Numbers of moments within an epoch, for those who watch a run of long epochs."""

from dataclasses import dataclass, field

from torch import Tensor

from training.records.metrics import ScoreSums, scores_from_sums


@dataclass(frozen=True)
class StepRecord:
    """A moment within an epoch.

    Attributes:
        step: batches since the run began.
        epoch: epochs since the run began, a fraction.
        lr: learning rate of the last step.
        train_loss, train_err1: means over the batches since the record before it, or since the
            epoch began; of the main process's share of them. nan where every step was skipped.
        skipped_steps: number of steps of this epoch that ``--on-nan skip`` has left out.
    """

    step: int
    epoch: float
    lr: float
    train_loss: float
    train_err1: float
    skipped_steps: int


@dataclass
class StepRecords:
    """Makes a record every ``print_freq`` batches of epochs of ``batches_per_epoch``.

    Attributes:
        print_freq, batches_per_epoch: see above.
        start: epochs, and batches of the next one, that the run had had before.
    """

    print_freq: int
    batches_per_epoch: int
    start: tuple[int, int] = (0, 0)
    _epoch: int = field(init=False)
    _batches: int = field(init=False)
    _sums: Tensor | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._epoch, self._batches = self.start

    def record(self, epoch: int, batches: int, sums: ScoreSums, lr: float) -> StepRecord | None:
        """Return the record after ``batches`` batches of ``epoch``, None where none is due.

        Args:
            epoch: its number, from 0.
            batches: of it so far.
            sums: of the scores of all of them; they are read, which waits for the device, only
                where a record is due.
            lr: learning rate of the last step.
        """
        if epoch != self._epoch:
            self._epoch, self._batches, self._sums = epoch, 0, None
        if batches == self._batches or batches % self.print_freq:
            return None
        before, self._batches, self._sums = self._sums, batches, sums.sums.clone()
        scores = scores_from_sums(self._sums if before is None else self._sums - before)
        step = epoch * self.batches_per_epoch + batches
        return StepRecord(
            step=step,
            epoch=step / self.batches_per_epoch,
            lr=lr,
            train_loss=scores.loss,
            train_err1=scores.err1,
            skipped_steps=round(self._sums[4].item()),
        )
