"""``evaluation.json``: what ``--evaluate`` came to."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from training.atomic_write import atomic_write
from training.errors import UserError

EVALUATION_NAME = "evaluation.json"


@dataclass(frozen=True)
class Evaluation:
    """The scores of a checkpoint on the validation images.

    Attributes:
        top1_error, top5_error: in percent.
        loss: mean cross-entropy.
        images: number of images that count.
        skipped_images: number of those that could not be read, which do not count.
        averaged: the weights are the averaged ones of ``--ema``.
        checkpoint: the file's whole path.
        dataset, data: what the images are, as the options of these names; ``data`` is what
            ``--val-data`` says where that is given.
    """

    top1_error: float
    top5_error: float
    loss: float
    images: int
    skipped_images: int
    averaged: bool
    checkpoint: str
    dataset: str
    data: str

    def __str__(self) -> str:
        return (
            f"top-1 error {self.top1_error:.2f}%, top-5 error {self.top5_error:.2f}%, "
            f"loss {self.loss:.4f} on {self.images} images"
            + (f", {self.skipped_images} bad ones skipped" if self.skipped_images else "")
            + (", of the averaged weights" if self.averaged else "")
        )


def write_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Write ``evaluation`` to ``path``, in place of an earlier one.

    Raises:
        WriteError: the file cannot be written.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(asdict(evaluation), indent=2) + "\n", encoding="utf-8")


def read_evaluation(path: Path) -> Evaluation:
    """Return what ``write_evaluation`` wrote.

    Raises:
        UserError: there is no such file, or it is not one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Evaluation(**{field.name: content[field.name] for field in fields(Evaluation)})
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: is no evaluation of a checkpoint ({error!r})") from error
