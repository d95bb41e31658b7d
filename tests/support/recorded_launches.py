"""Which programs are compiled ahead and which are launched, where there is no GPU."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch

from gfgp_cupy import use_backend
from gfgp_cupy.backends import cupy as backend
from gfgp_cupy.kernels import Launch

Program = tuple[str, str, tuple[str, ...]]


class RecordedLaunches:
    """The programs.

    Attributes:
        compiled: by ``compile_launches``.
        launched: of launches, which are not executed: results are what was in their memory.
    """

    def __init__(self) -> None:
        self.compiled: set[Program] = set()
        self.launched: set[Program] = set()

    def compile_launches(self, launches: Iterable[Launch], device: torch.device) -> int:
        """Take the place of the backend's."""
        programs = {_program_of(launch) for launch in launches}
        self.compiled |= programs
        return len(programs)

    def run_launch(self, launch: Launch, device: torch.device) -> None:
        """Take the place of the backend's."""
        self.launched.add(_program_of(launch))


@contextmanager
def recorded_launches() -> Iterator[RecordedLaunches]:
    """Within the block the cupy backend serves CPU tensors, and its launches are recorded."""
    recorded = RecordedLaunches()
    with (
        mock.patch.object(backend, "unavailable", lambda device: None),
        mock.patch.object(backend, "compile_launches", recorded.compile_launches),
        mock.patch.object(backend, "run_launch", recorded.run_launch),
        use_backend("cupy"),
    ):
        yield recorded


def _program_of(launch: Launch) -> Program:
    return launch.name, launch.source, launch.defines
