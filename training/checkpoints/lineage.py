"""Going back: a run that goes on from an earlier checkpoint leaves its later ones aside.

``--out-dir`` holds one line of checkpoints, each of which follows from the ones before it. Those
of what was abandoned lie in the folder ``abandoned-N`` in it, with the log as it was: there they
are neither resumed from by ``--resume auto``, nor counted or deleted by ``--keep-checkpoints``.
"""

import filecmp
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from training.atomic_write import WriteError, write_link
from training.checkpoints.files import (
    BEST_NAME,
    Position,
    checkpoint_name,
    checkpoints_in,
    is_in,
)
from training.checkpoints.format import Checkpoint, load_checkpoint
from training.errors import UserError, shortened
from training.records.config import CONFIG_NAME
from training.records.history import LOG_NAME, EpochRecord, best_record

ABANDONED = "abandoned-"


def go_back(out_dir: Path, start: Checkpoint) -> str | None:
    """Set aside what is later in ``out_dir`` than ``start``; return what was done, in words.

    A kill in the middle leaves a folder whose newest checkpoint is one of the abandoned line or
    ``start``, and never a mixture. None where there was nothing to do.

    Raises:
        WriteError: the files cannot be moved.
    """
    path = Path(start.path)
    try:
        abandoned = _in_place_of(path, out_dir, start.position)
        found = checkpoints_in(out_dir)  # the newest first: what is left is the line's beginning
        abandoned += [each for position, each in found.items() if position > start.position]
        folder = _set_aside(abandoned, out_dir) if abandoned else None
        if is_in(path, out_dir):
            # Under a later one's name it has just been set aside.
            source = path if path.exists() else folder / path.name
            _put(source, out_dir / checkpoint_name(start.position))
        _settle_best(out_dir, start, folder)
    except OSError as error:
        raise WriteError(
            f"--resume {path}: {out_dir} cannot be made to go on from there "
            f"({error.strerror or error}); free the space or the folder's permissions"
        ) from error
    if folder is None:
        return None
    return f"back to {path.name}: {shortened([each.name for each in abandoned])} moved to {folder}"


def has_best(out_dir: Path, history: Sequence[EpochRecord]) -> bool:
    """Return whether ``out_dir`` holds the weights of the best epoch of ``history``.

    They are elsewhere where the run was resumed from another folder and has not got better.
    """
    epoch = best_record(history).epoch
    if Path(out_dir, checkpoint_name(Position(epoch))).exists():
        return True
    best = out_dir / BEST_NAME
    return best.exists() and _position_of(best) == Position(epoch)


def _in_place_of(path: Path, out_dir: Path, position: Position) -> list[Path]:
    """Return the file, if any, that has the name that ``path``, of ``position``, is to have."""
    named = out_dir / checkpoint_name(position)
    if not is_in(path, out_dir) or not named.exists():
        return []
    is_same = os.path.samefile(path, named) or filecmp.cmp(path, named, shallow=False)
    return [] if is_same else [named]


def _set_aside(paths: Sequence[Path], out_dir: Path) -> Path:
    """Move checkpoints to a new folder, with a copy of the log; return the folder."""
    numbers = [each.name.removeprefix(ABANDONED) for each in out_dir.glob(f"{ABANDONED}*")]
    number = 1 + max((int(each) for each in numbers if each.isdecimal()), default=0)
    folder = out_dir / f"{ABANDONED}{number}"
    folder.mkdir()
    for name in (LOG_NAME, CONFIG_NAME):
        if (out_dir / name).exists():
            shutil.copy(out_dir / name, folder / name)
    for path in paths:
        os.replace(path, folder / path.name)
    return folder


def _settle_best(out_dir: Path, start: Checkpoint, folder: Path | None) -> None:
    """Make ``model_best.pth.tar`` one of the line's where it is later than ``start``.

    It is then the best of the epochs whose checkpoint is there, if only that of ``start``. That of
    the epoch that comes next is let be where nothing else is later: a run that was killed before it
    could write that epoch's checkpoint writes the same again.
    """
    best = out_dir / BEST_NAME
    epochs = [best_record(start.history).epoch, start.epoch] if start.history else []
    sources = [out_dir / checkpoint_name(Position(epoch)) for epoch in epochs]
    sources = [source for source in sources if source.exists()]
    if best.exists():
        if sources and os.path.samefile(best, sources[0]):
            return
        position = _position_of(best)
        if position is not None and position.epochs <= start.epoch + (folder is None):
            return
        os.replace(best, (folder or _set_aside([], out_dir)) / BEST_NAME)
    if sources:
        _put(sources[0], best)


def _position_of(path: Path) -> Position | None:
    """Return where the checkpoint ``path`` is; None where it is damaged, and to be replaced."""
    try:
        return load_checkpoint(str(path)).position
    except UserError:
        return None


def _put(source: Path, target: Path) -> None:
    """Give ``source`` the name ``target``, too, where nothing has it."""
    if not target.exists():
        write_link(source, target)
