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
def locked(out_dir: Path) -> Iterator[None]:
    """Keep other processes out of ``out_dir`` for the block; make the folder, if need be.

    The lock is a POSIX record lock: the system gives it up with the process, however that ends, and
    processes that are forked from it, such as those of a ``DataLoader``, have no part in it. What
    is empty in the end and was made here is removed.

    Raises:
        UserError: another process has the lock, or the folder cannot be written.
    """
    made = _make(out_dir)
    try:
        descriptor = _lock(out_dir)
        try:
            yield
        finally:
            # Before it is unlocked: a process that has opened the file sees that it is gone.
            (out_dir / LOCK_NAME).unlink(missing_ok=True)
            os.close(descriptor)
    finally:
        with suppress(OSError):  # there is something in it, or it is gone with all of it
            for folder in made:
                folder.rmdir()


def _make(out_dir: Path) -> list[Path]:
    """Make the folder; return what was made, from the innermost on."""
    missing = [each for each in (out_dir, *out_dir.parents) if not each.exists()]
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(out_dir, error) from error
    return missing


def _lock(out_dir: Path) -> int:
    """Return the descriptor of the locked file; it is unlocked when that is closed."""
    path = out_dir / LOCK_NAME
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise _unwritable(out_dir, error) from error
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in WITHOUT_LOCKS:
                print(
                    f"--out-dir {out_dir}: the file system has no locks ({error.strerror}); see "
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
                f"--out-dir {out_dir}: {holder or 'another process'} trains there; wait for its "
                "end or stop it, or choose another --out-dir"
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


def _unwritable(out_dir: Path, error: OSError) -> UserError:
    return UserError(f"--out-dir {out_dir}: cannot be written ({error.strerror}); choose another")
