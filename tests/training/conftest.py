"""What holds for the tests of the trainer: the curves of their runs, at which nobody looks, are not
drawn. That takes half of the time of a run of a few images."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from training.atomic_write import atomic_write


def write_no_curves(history: Sequence[object], curves: Path, lambdas: Path) -> None:
    """Take the place of ``write_figures``: the curves' files, written alike, and no drawing."""
    for path in (curves, curves.with_suffix(".png")):
        with atomic_write(path) as temporary:
            Path(temporary).write_text(f"{len(history)} epochs")


@pytest.fixture(scope="module", autouse=True)
def no_curves() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.records.figures.write_figures", write_no_curves)
        yield
