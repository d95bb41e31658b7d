"""Where Numba keeps what it compiles; one compilation of each of its functions where several
processes of tests need it at once."""

import fcntl
import gc
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numba
from numba.core.ccallback import CFunc

__all__ = ["cache_in", "compile_once"]


def compile_once() -> None:
    """From now on, a function that another process is compiling is waited for, and then found in
    Numba's cache on disk; and no garbage is collected meanwhile, for there is hardly any among so
    much that is new."""
    compile_now = CFunc.compile

    def compile_alone(self: CFunc) -> None:
        function = self.__wrapped__
        with _locked(f"{function.__module__}-{function.__qualname__}-{self._sig}"):
            collects = gc.isenabled()
            gc.disable()
            try:
                compile_now(self)
            finally:
                if collects:
                    gc.enable()

    CFunc.compile = compile_alone


def cache_in(folder: Path) -> None:
    """From now on, as if this process had been started with ``NUMBA_CACHE_DIR=folder``."""
    numba.config.CACHE_DIR = str(folder)


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """While no other process is there with the same name."""
    folder = Path(tempfile.gettempdir(), f"gfgp-numba-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    with open(folder / "".join(filter(str.isalnum, name)), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
