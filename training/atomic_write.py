"""Files that are either whole or as they were before, also after a crash of the machine."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.errors import UserError


class WriteError(UserError):
    """The file system refuses a write: no space, no permission, or no folder any more."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path in ``path``'s folder that takes ``path``'s place at the end.

    When the body raises, ``path`` stays as it was and the temporary file is removed; see
    ``remove_leftovers`` for that of a process that was killed.

    Raises:
        WriteError: the file system refuses the write.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "log.csv"
        >>> with atomic_write(path) as temporary:
        ...     _ = temporary.write_text("epoch")
        >>> path.read_text()
        'epoch'
    """
    temporary = path.with_name(f".{path.name}{_end_of_temporary(os.getpid())}")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        raise WriteError(
            f"cannot write {path} ({error.strerror or error}): free the space or the folder's "
            "permissions, or choose another folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_link(source: Path, path: Path) -> None:
    """Let ``path`` have the content of ``source``, at once and atomically.

    It becomes a hard link, the same file under another name, where the file system has those, and
    a copy elsewhere. Files that ``atomic_write`` replaces are new ones, so that neither name
    changes with the other.

    Raises:
        WriteError: the file system refuses the write.
    """
    with atomic_write(path) as temporary:
        try:
            os.link(source, temporary)
        except OSError:  # no links there, too many of them, or a reason why a copy fails, too
            shutil.copyfile(source, temporary)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that other processes have left in ``folder``.

    Call it where no other one is writing there.
    """
    for path in folder.glob(f".*{_end_of_temporary('*')}"):
        is_temporary = re.fullmatch(r"\..+\.\d+\.tmp", path.name) and path.is_file()
        if is_temporary and not path.name.endswith(_end_of_temporary(os.getpid())):
            path.unlink(missing_ok=True)


def _end_of_temporary(pid: int | str) -> str:
    return f".{pid}.tmp"


def _flush(path: Path) -> None:
    """Return when what was written to the file or folder has reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(path: Path) -> None:
    """Return when the names of the folder's files have reached the disk, if it can be asked to."""
    try:
        _flush(path)
    except OSError as error:
        # What file systems answer that have no such request.
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
