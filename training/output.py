"""The output directory of a run."""

import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from training.checkpoints import BEST_NAME, epoch_checkpoints
from training.distributed import Process, all_reduce_sum
from training.errors import UserError
from training.settings import Settings

LOG_NAME = "log.csv"


def after_restart(settings: Settings, process: Process) -> Settings:
    """Return ``settings``, resuming from the newest checkpoint if torchrun started us anew.

    A machine counts only the restarts that it caused, so that the processes add theirs up.
    """
    if settings.torchrun is None:
        return settings
    restarts = torch.tensor([settings.torchrun.restarts], device=process.device)
    folder = Path(settings.out_dir)
    if not all_reduce_sum(restarts, process).item() or not folder.is_dir():
        return settings
    checkpoints = epoch_checkpoints(folder)
    return replace(settings, resume=str(checkpoints[max(checkpoints)])) if checkpoints else settings


def refuse_other_run(settings: Settings) -> None:
    """Raise UserError if ``--out-dir`` holds a run that ``--resume`` does not continue."""
    folder = Path(settings.out_dir)
    if not folder.is_dir():
        return
    found = [name for name in (LOG_NAME, BEST_NAME) if Path(folder, name).exists()]
    found += [path.name for path in epoch_checkpoints(folder).values()]
    continued = settings.resume and Path(settings.resume).resolve().parent == folder.resolve()
    if found and not continued:
        raise UserError(
            f"--out-dir {folder}: holds a run already ({found[0]}); continue it with "
            "--resume CHECKPOINT, or choose another --out-dir"
        )


def make_out_dir(settings: Settings) -> None:
    """Create ``--out-dir``, and the folder of ``--pdf-filename`` in it.

    Raises:
        UserError: no file can be written there.
    """
    out_dir = Path(settings.out_dir)
    try:
        for folder in (out_dir, (out_dir / settings.pdf_filename).parent):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        raise UserError(
            f"--out-dir {settings.out_dir}: cannot be written ({error.strerror}); choose another"
        ) from error
