"""Files that are either whole or as they were before."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.errors import UserError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path in ``path``'s folder that takes ``path``'s place at the end.

    When the body raises, ``path`` stays as it was and the temporary file is removed.

    Raises:
        UserError: the file system refuses the write.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "log.csv"
        >>> with atomic_write(path) as temporary:
        ...     _ = temporary.write_text("epoch")
        >>> path.read_text()
        'epoch'
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error}): free the space or the folder's "
            "permissions, or choose another --out-dir"
        ) from error
    finally:
        if temporary.exists():
            temporary.unlink()
