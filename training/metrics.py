"""Loss and top-1 and top-5 error, summed over images and processes."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from training.distributed import Process, all_reduce_sum


@dataclass(frozen=True)
class Scores:
    """Means over ``images`` images: cross-entropy, top-1 and top-5 error in percent."""

    loss: float
    err1: float
    err5: float
    images: int

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss)

    def __str__(self) -> str:
        return f"loss {self.loss:.4f} err@1 {self.err1:.2f}% err@5 {self.err5:.2f}%"


class ScoreSums:
    """Sums of the scores on ``device``, so that adding to them waits for no device."""

    def __init__(self, device: torch.device) -> None:
        # loss, top-1 errors, top-5 errors, images
        self.sums = torch.zeros(4, dtype=torch.float64, device=device)

    def add(self, mean_loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Add a batch: its mean loss (scalar), logits [N, classes] and class indices [N]."""
        count = len(targets)
        wrong1, wrong5 = count_errors(logits.detach(), targets)
        self.sums += torch.stack(
            [mean_loss.detach().double() * count, wrong1, wrong5, torch.full_like(wrong1, count)]
        )

    def scores(self) -> Scores:
        """Return the means over what this process has added."""
        return scores_from_sums(self.sums)

    def scores_of_all(self, process: Process) -> Scores:
        """Return the means over what all processes have added; every process must call it."""
        return scores_from_sums(self.sums_of_all(process))

    def sums_of_all(self, process: Process) -> Tensor:
        """Return the sums over what all processes have added; every process must call it."""
        return all_reduce_sum(self.sums.clone(), process)


def scores_from_sums(sums: Tensor) -> Scores:
    """Return the means of sums [4] of losses, top-1 errors, top-5 errors and images."""
    loss, wrong1, wrong5, images = sums.tolist()
    return Scores(loss / images, 100 * wrong1 / images, 100 * wrong5 / images, round(images))


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
