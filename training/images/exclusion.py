"""The list of images that ``--exclude`` leaves out of the evaluation."""

from collections.abc import Sequence
from pathlib import Path

from training.errors import UserError

ILSVRC_VALIDATION_NAME = "ILSVRC2012_val_{:08d}.JPEG"


def read_excluded_names(path: str) -> set[str]:
    """Return the file names that the text file ``path`` lists, one entry a line.

    An entry is a file name or, as in ILSVRC's devkit (``ILSVRC2014_clsloc_validation_blacklist``),
    the 1-based number k of the validation image ``ILSVRC2012_val_{k:08d}.JPEG``.

    Raises:
        UserError: ``path`` cannot be read.
    """
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"--exclude {path}: cannot be read as a text file with a file name or number "
            f"on each line ({error})"
        ) from error
    entries = [line.strip() for line in lines if line.strip()]
    return {
        ILSVRC_VALIDATION_NAME.format(int(entry)) if entry.isdecimal() else entry
        for entry in entries
    }


def indices_to_keep(names: Sequence[str], path: str) -> list[int]:
    """Return the positions of those ``names`` (file names) that the list ``path`` leaves in.

    Raises:
        UserError: the list cannot be read, names none of them, or names all of them.
    """
    excluded = read_excluded_names(path)
    kept = [index for index, name in enumerate(names) if name not in excluded]
    if len(kept) == len(names):
        raise UserError(
            f"--exclude {path}: none of its {len(excluded)} entries is among the {len(names)} "
            "validation images; it takes file names without folders, or ILSVRC's numbers"
        )
    if not kept:
        raise UserError(f"--exclude {path}: leaves none of the {len(names)} validation images")
    return kept
