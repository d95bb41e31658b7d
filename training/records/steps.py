"""Numbers of moments within an epoch, for those who watch a run of long epochs."""

from dataclasses import dataclass, field

from torch import Tensor

from training.records.metrics import ScoreSums, scores_from_sums
from training.records.step_axis import StepAxis


@dataclass(frozen=True)
class StepRecord:
    """A moment within an epoch.

    Attributes:
        step: batches since the run began.
        epoch: epochs since the run began, a fraction.
        lr: learning rate of the last step.
        train_loss, train_err1: means over the batches since the record before it, or since the
            epoch began or was gone on with; of the main process's share of them. nan where every
            step was skipped.
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
    """Makes a record every ``print_freq`` batches.

    Attributes:
        print_freq: see above.
        axis: numbers the batches.
        batches: that the run had had before of the epoch that it goes on within.
        sums: of the scores of these, of ``ScoreSums``; None where there are none.
    """

    print_freq: int
    axis: StepAxis
    batches: int = 0
    sums: Tensor | None = None
    _epoch: int = field(init=False)

    def __post_init__(self) -> None:
        self._epoch = self.axis.epochs

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
            self._epoch, self.batches, self.sums = epoch, 0, None
        if batches == self.batches or batches % self.print_freq:
            return None
        before, self.batches, self.sums = self.sums, batches, sums.sums.clone()
        since = self.sums if before is None else self.sums - before.to(self.sums.device)
        scores = scores_from_sums(since)
        return StepRecord(
            step=self.axis.at(epoch, batches),
            epoch=epoch + batches / self.axis.batches_per_epoch,
            lr=lr,
            train_loss=scores.loss,
            train_err1=scores.err1,
            skipped_steps=round(self.sums[4].item()),
        )
