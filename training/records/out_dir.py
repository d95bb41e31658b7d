"""The output directory of a run."""

import tempfile
from pathlib import Path

from training.atomic_write import remove_leftovers
from training.checkpoints.files import BEST_NAME, checkpoints_in
from training.errors import UserError
from training.settings import Settings

LOG_NAME = "log.csv"


def refuse_other_run(settings: Settings) -> None:
    """Raise UserError if ``--out-dir`` holds a run that ``--resume`` does not continue."""
    folder = Path(settings.out_dir)
    if not folder.is_dir():
        return
    found = [name for name in (LOG_NAME, BEST_NAME) if Path(folder, name).exists()]
    found += [path.name for path in checkpoints_in(folder).values()]
    continued = settings.resume and Path(settings.resume).resolve().parent == folder.resolve()
    if found and not continued:
        raise UserError(
            f"--out-dir {folder}: holds a run already ({found[0]}); continue it with "
            "--resume CHECKPOINT, or choose another --out-dir"
        )


def make_out_dir(settings: Settings) -> None:
    """Create ``--out-dir``, and the folder of ``--pdf-filename`` in it; tidy up after a kill.

    Raises:
        UserError: no file can be written there.
    """
    out_dir = Path(settings.out_dir)
    try:
        for folder in (out_dir, (out_dir / settings.pdf_filename).parent):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
            remove_leftovers(folder)
    except OSError as error:
        raise UserError(
            f"--out-dir {settings.out_dir}: cannot be written ({error.strerror}); choose another"
        ) from error
