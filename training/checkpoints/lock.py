"""One run at a time in an output directory."""

import errno
import fcntl
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import wraps
from pathlib import Path

from training.errors import UserError
from training.processes.ranks import Process
from training.settings import Settings

LOCK_NAME = ".lock"
HELD = (errno.EACCES, errno.EAGAIN)
# What file systems answer that have no locks, or whose server of locks does not.
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


def one_run_at_a_time(
    work: Callable[[Settings, Process], None],
) -> Callable[[Settings, Process], None]:
    """Return ``work`` so that the main process of a training keeps others out of ``--out-dir``."""

    @wraps(work)
    def wrapped(settings: Settings, process: Process) -> None:
        trains_here = process.is_main and not settings.evaluate
        with locked(Path(settings.out_dir)) if trains_here else nullcontext():
            work(settings, process)

    return wrapped


@contextmanager
def locked(folder: Path, option: str = "--out-dir") -> Iterator[None]:
    """Keep other processes out of ``folder`` for the block; make it, if need be.

    ``option`` is what errors call it.

    The lock is a POSIX record lock: the system gives it up with the process, however that ends, and
    processes that are forked from it, such as those of a ``DataLoader``, have no part in it. What
    is empty in the end and was made here is removed.

    Raises:
        UserError: another process has the lock, or the folder cannot be written.
    """
    made = _make(folder, option)
    try:
        descriptor = _lock(folder, option)
        try:
            yield
        finally:
            # Before it is unlocked: a process that has opened the file sees that it is gone.
            (folder / LOCK_NAME).unlink(missing_ok=True)
            os.close(descriptor)
    finally:
        with suppress(OSError):  # there is something in it, or it is gone with all of it
            for each in made:
                each.rmdir()


def _make(folder: Path, option: str) -> list[Path]:
    """Make the folder; return what was made, from the innermost on."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, option, error) from error
    return missing


def _lock(folder: Path, option: str) -> int:
    """Return the descriptor of the locked file; it is unlocked when that is closed."""
    path = folder / LOCK_NAME
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise _unwritable(folder, option, error) from error
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in WITHOUT_LOCKS:
                print(
                    f"{option} {folder}: the file system has no locks ({error.strerror}); see "
                    "that no other process trains there",
                    file=sys.stderr,
                    flush=True,
                )
                return descriptor
            holder = os.read(descriptor, 200).decode(errors="replace")
            os.close(descriptor)
            if error.errno not in HELD:
                raise
            raise UserError(
                f"{option} {folder}: {holder or 'another process'} trains there; wait for its end "
                f"or stop it, or choose another {option}"
            ) from error
        if _is_still(path, descriptor):
            break
        os.close(descriptor)  # its last holder has removed it in the meantime
    with suppress(OSError):  # a full disk: who holds the lock is told without a name
        os.truncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
    return descriptor


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _unwritable(folder: Path, option: str, error: OSError) -> UserError:
    return UserError(f"{option} {folder}: cannot be written ({error.strerror}); choose another")
