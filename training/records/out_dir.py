"""The output directory of a run."""

import tempfile
from pathlib import Path

from training.errors import UserError


def make_out_dir(out_dir: str, *others: Path) -> None:
    """Create ``--out-dir`` and ``others``, folders in it.

    Raises:
        UserError: no file can be written there.
    """
    try:
        for folder in (Path(out_dir), *others):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        raise UserError(
            f"--out-dir {out_dir}: cannot be written ({error.strerror}); choose another"
        ) from error
