"""Loss and top-1 and top-5 error, summed over images and processes."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from training.processes.ranks import Process, all_reduce_sum


@dataclass(frozen=True)
class Scores:
    """Means over ``images`` images: cross-entropy, top-1 and top-5 error in percent.

    Without images they are nan. ``skipped_steps`` is the number of steps of training that were
    left out, and their images with them.
    """

    loss: float
    err1: float
    err5: float
    images: int
    skipped_steps: int = 0

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss)

    def __str__(self) -> str:
        return f"loss {self.loss:.4f} err@1 {self.err1:.2f}% err@5 {self.err5:.2f}%"


class ScoreSums:
    """Sums of the scores on ``device``, so that adding to them waits for no device."""

    def __init__(self, device: torch.device) -> None:
        # loss, top-1 errors, top-5 errors, images, skipped steps
        self.sums = torch.zeros(5, dtype=torch.float64, device=device)

    def add(self, mean_loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Add a batch: its mean loss (scalar), logits [N, classes] and class indices [N]."""
        count = len(targets)
        wrong1, wrong5 = count_errors(logits.detach(), targets)
        self.sums[:4] += torch.stack(
            [mean_loss.detach().double() * count, wrong1, wrong5, torch.full_like(wrong1, count)]
        )

    def add_sums(self, other: "ScoreSums") -> None:
        """Add what was added to ``other``."""
        self.sums += other.sums

    def add_skipped_step(self) -> None:
        """Count a step that every process has left out."""
        self.sums[4] += 1

    def go_on_from(self, sums: Tensor, process: Process) -> None:
        """Begin with the ``sums_of_all`` of earlier: in the main process with all of them.

        But of the skipped steps each process counts the same ones.
        """
        if process.is_main:
            self.sums.copy_(sums)
        self.sums[4] = sums[4] / process.world_size

    @property
    def loss_is_finite(self) -> Tensor:
        """Whether each loss was, as a tensor on the device."""
        return self.sums[0].isfinite()

    def scores(self) -> Scores:
        """Return the means over what this process has added."""
        return scores_from_sums(self.sums)

    def scores_of_all(self, process: Process) -> Scores:
        """Return the means over what all processes have added; every process must call it."""
        return scores_from_sums(self.sums_of_all(process), process.world_size)

    def sums_of_all(self, process: Process) -> Tensor:
        """Return the sums over what all processes have added; every process must call it."""
        return all_reduce_sum(self.sums.clone(), process)


def scores_from_sums(sums: Tensor, processes: int = 1) -> Scores:
    """Return the means of sums [5], over ``processes``, as ``ScoreSums`` has them."""
    loss, wrong1, wrong5, images, skipped = sums.tolist()
    divisor = images or math.nan
    return Scores(
        loss=loss / divisor,
        err1=100 * wrong1 / divisor,
        err5=100 * wrong5 / divisor,
        images=round(images),
        skipped_steps=round(skipped / processes),
    )


def count_errors(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many of ``targets`` [N] miss the 1 and the 5 largest ``logits`` [N, classes].

    With fewer than five classes every target is among the five. Two float64 scalars on the
    logits' device.

    Example:
        >>> count_errors(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
        (tensor(1., dtype=torch.float64), tensor(0., dtype=torch.float64))
    """
    predicted = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = (predicted == targets[:, None]).double()
    count = len(targets)
    return count - hits[:, 0].sum(), count - hits.sum()
