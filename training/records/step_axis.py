"""Batches since a run began: what is told of its steps is told over their number."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StepAxis:
    """Numbers the batches of a run, which may have had epochs of other lengths before it went on.

    Attributes:
        epochs: number of epochs that it has had.
        steps: number of batches of these.
        batches_per_epoch: that it trains on from now on.
    """

    epochs: int
    steps: int
    batches_per_epoch: int

    def at(self, epochs: int, batches: int = 0) -> int:
        """Return the number of batches after ``epochs`` epochs and ``batches`` of the next one.

        Epochs that the run had had before count as of one length.

        Example:
            >>> axis = StepAxis(epochs=4, steps=180, batches_per_epoch=10)
            >>> axis.at(2), axis.at(4), axis.at(5, batches=3)
            (90, 180, 193)
        """
        if epochs < self.epochs:
            return self.steps * epochs // self.epochs
        return self.steps + (epochs - self.epochs) * self.batches_per_epoch + batches
