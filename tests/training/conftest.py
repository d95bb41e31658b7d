"""What holds for the tests of the trainer: the curves of their runs, at which nobody looks, are not
drawn. That takes half of the time of a run of a few images."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from training.atomic_write import atomic_write


def write_no_curves(history: Sequence[object], pdf_path: Path) -> None:
    """Take the place of ``write_curves``: the same files, written alike, and no drawing in them."""
    for path in (pdf_path, pdf_path.with_suffix(".png")):
        with atomic_write(path) as temporary:
            Path(temporary).write_text(f"{len(history)} epochs")


@pytest.fixture(scope="module", autouse=True)
def no_curves() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.records.run_files.write_curves", write_no_curves)
        yield
