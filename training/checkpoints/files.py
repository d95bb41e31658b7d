"""The checkpoint files of an output directory: their names, which is the newest, which to keep."""

import re
from pathlib import Path
from typing import NamedTuple

BEST_NAME = "model_best.pth.tar"
NAME = re.compile(r"checkpoint-epoch(\d+)(?:-batch(\d+))?\.pth\.tar")


class Position(NamedTuple):
    """How far a run has come: ``epochs`` finished, and ``batches`` of the next one."""

    epochs: int
    batches: int = 0


def checkpoint_name(position: Position) -> str:
    """Return the name of the checkpoint at ``position``: the published one after an epoch.

    Example:
        >>> checkpoint_name(Position(3)), checkpoint_name(Position(3, 120))
        ('checkpoint-epoch3.pth.tar', 'checkpoint-epoch3-batch120.pth.tar')
    """
    within = f"-batch{position.batches}" if position.batches else ""
    return f"checkpoint-epoch{position.epochs}{within}.pth.tar"


def checkpoints_in(folder: Path) -> dict[Position, Path]:
    """Return the checkpoints of ``folder``, the newest first; none where there is no folder."""
    if not folder.is_dir():
        return {}
    matches = [(NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    found = {Position(int(match[1]), int(match[2] or 0)): path for match, path in matches if match}
    return dict(sorted(found.items(), reverse=True))


def is_in(path: Path, folder: str | Path) -> bool:
    """Return whether the file lies in ``folder``, and not in a folder in it."""
    return path.resolve().parent == Path(folder).resolve()


def remove_outdated(folder: Path, newest: Position, kept: int | None) -> None:
    """Delete what the checkpoint at ``newest`` makes superfluous in ``folder``.

    That is every checkpoint within an epoch before it and, of those after an epoch, all but the
    last ``kept`` up to it (None keeps them all). Later ones, of another run, are let be.
    """
    older = {
        position: path for position, path in checkpoints_in(folder).items() if position < newest
    }
    within = [path for position, path in older.items() if position.batches]
    after = [path for position, path in older.items() if not position.batches]
    surplus = [] if kept is None else after[kept - (newest.batches == 0) :]
    for path in (*within, *surplus):
        path.unlink(missing_ok=True)
