"""What a second session on a GPU runs, by what the first has left: see ``gpu_session.py``."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.contenders import OP
from benchmarks.results import PassTime, PoolingResults, PoolingSettings, read_results
from benchmarks.stages import Phase, Stage

__all__ = ["second_phases"]

PYTHON = sys.executable


def second_phases(first: Path) -> list[Phase]:
    """The profile of the slowest pass of the results in ``first``.

    Raises:
        SystemExit: there are none.
    """
    return [Phase([[profile(*slowest_pass(read_pooling(first)))]], 130)]


def read_pooling(folder: Path) -> list[PoolingResults]:
    """The results of operators.py in ``folder``.

    Raises:
        SystemExit: there are none.
    """
    files = sorted(folder.glob("pooling-*.json"))
    if not files:
        sys.exit(f"--after {folder}: holds no results of operators.py; name the first session's")
    return [read_results(path) for path in files]


def slowest_pass(results: Iterable[PoolingResults]) -> tuple[PoolingSettings, PassTime]:
    """The operator's pass that stays farthest below the speed of a copy, and its run's settings."""
    passes = [
        (one.settings, time)
        for one in results
        for time in one.times
        if time.contender == OP and time.direction != "both"
    ]
    return min(passes, key=lambda each: each[1].fraction_of_copy)


def profile(settings: PoolingSettings, slowest: PassTime) -> Stage:
    """All that Nsight Compute measures of the kernels of one pass."""
    command = (
        shutil.which("ncu") or "/usr/local/cuda/bin/ncu", "--set", "full",
        "--clock-control", "none", "--profile-from-start", "off",
        PYTHON, "benchmarks/profile_target.py", "--shape", slowest.shape,
        "--direction", slowest.direction, "--dtype", settings.dtype, "--layout", settings.layout,
        "--batch-size", str(settings.batch_size),
    )  # fmt: skip
    return Stage("ncu", command, 130)
