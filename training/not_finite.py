"""A loss, a gradient or weights that are not finite: how it is seen, and when the run stops."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.utils import get_total_norm

from training.errors import UserError
from training.records.metrics import Scores
from training.records.progress import Progress

MOST_SKIPPED_IN_A_ROW = 10
"""So many steps that ``--on-nan skip`` leaves out one after the other end the run."""

SMALLEST_SCALE = torch.finfo(torch.float16).tiny
"""A loss that is scaled by less has gradients, at most 1 each, that float16 has no room for below:
what overflows then is no matter of the scale."""

WAY_OUT = "the checkpoints written before are kept: lower --lr, or look for bad images"


def all_finite(tensors: Iterable[Tensor]) -> Tensor:
    """Return whether no element of ``tensors`` is nan or infinite, as a tensor on their device.

    Example:
        >>> import torch
        >>> all_finite([torch.zeros(3), torch.tensor([1.0, -math.inf])])
        tensor(False)
    """
    # The largest magnitude is nan where one is, and cannot overflow as a sum would.
    return get_total_norm(tensors, math.inf).isfinite()


def finite(scores: Scores, title: str) -> Scores:
    """Return ``scores``, or raise UserError where their loss is nan or infinite."""
    if scores.images and not scores.is_finite:
        raise UserError(f"{title}: the loss is not finite ({scores.loss}); {WAY_OUT}")
    return scores


def check_scale(scaler: GradScaler, title: str) -> None:
    """Check that it may be for the scale that ``--amp fp16`` has left out steps.

    After each of them the scaler halves it, which helps where a gradient was too large for float16,
    and not where it is nan or infinite in itself. Waits for the device.

    Raises:
        UserError: the scale is below ``SMALLEST_SCALE``.
    """
    scale = scaler.get_scale()
    if scale < SMALLEST_SCALE:
        raise UserError(
            f"{title}: the gradient was not finite in so many steps, all of them left out, that "
            f"--amp fp16 scales the loss by no more than {scale:.1g}: pass --amp bf16, or off; "
            f"{WAY_OUT}"
        )


def check_finite(model: nn.Module, scaler: GradScaler, scores: Scores, title: str) -> None:
    """Check that a checkpoint may be written; all processes come to the same.

    Scores alone would not do: the gradient of the last step may have overflowed.

    Args:
        model: under training.
        scaler: of its loss.
        scores: of all processes, since the epoch began.
        title: of the epoch.

    Raises:
        UserError: the loss of a step that counts, or a weight, is nan or infinite, or gradients
            were in too many steps of ``--amp fp16``.
    """
    finite(scores, title)
    check_scale(scaler, title)
    if not all_finite(parameter.detach() for parameter in model.parameters()):
        raise UserError(f"{title}: the weights are not finite; {WAY_OUT}")


def check_counted(scores: Scores, title: str) -> None:
    """Raise UserError where ``--on-nan skip`` has left out every step of an epoch."""
    if not scores.images:
        raise UserError(
            f"{title}: no step had a finite loss and gradient, so that all "
            f"{scores.skipped_steps} were skipped; {WAY_OUT}"
        )


@dataclass
class SkippedSteps:
    """Tells of the steps of an epoch that were left out, and ends the run after too many.

    The count starts anew with each epoch, and where a run resumes.

    Attributes:
        title: of the epoch.
        progress: of the epoch.
        in_a_row: left out since the last step that was taken.
    """

    title: str
    progress: Progress
    in_a_row: int = 0

    def add(self, taken: bool, batch: int) -> None:
        """Count the step of the epoch's ``batch``, from 1 on; the same in all processes.

        Raises:
            UserError: it is the last of ``MOST_SKIPPED_IN_A_ROW`` that were not ``taken``.
        """
        if taken:
            self.in_a_row = 0
            return
        self.in_a_row += 1
        self.progress.note(
            f"{self.title}, batch {batch}: the loss or the gradient is "
            "not finite; its step is skipped"
        )
        if self.in_a_row == MOST_SKIPPED_IN_A_ROW:
            raise UserError(
                f"{self.title}: the loss or the gradient was not finite in {self.in_a_row} steps "
                f"in a row; {WAY_OUT}"
            )
