"""What holds for the tests of the trainer: the pictures of their runs, at which nobody looks, are
not drawn. That takes half of the time of a run of a few images."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from training.atomic_write import atomic_write
from training.records.confusion import CONFUSION_PDF_NAME
from training.records.predictions import Predictions


def write_no_curves(history: Sequence[object], curves: Path, lambdas: Path) -> None:
    """Take the place of ``write_figures``: the curves' files, written alike, and no drawing."""
    for path in (curves, curves.with_suffix(".png")):
        with atomic_write(path) as temporary:
            Path(temporary).write_text(f"{len(history)} epochs")


def write_no_confusion(predictions: Predictions, out_dir: Path) -> None:
    """Take the place of ``write_confusion``, likewise."""
    write_no_curves(predictions.targets, out_dir / CONFUSION_PDF_NAME, out_dir)


@pytest.fixture(scope="module", autouse=True)
def no_curves() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.records.figures.write_figures", write_no_curves)
        patch.setattr("training.evaluation.write_confusion", write_no_confusion)
        yield
