"""What a second session on a GPU runs, by what the first has left: see ``gpu_session.py``."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.contenders import OP
from benchmarks.gpu_session import FEW_THREADS, LATER_TESTS, pytest_command
from benchmarks.results import PassTime, PoolingResults, PoolingSettings, read_results
from benchmarks.stages import Phase, Stage

__all__ = ["second_phases"]

PYTHON = sys.executable

RUNS = {
    f"poolings-{dtype}-{layout}": ("--dtype", dtype, "--layout", layout)
    for dtype in ("float32", "bfloat16")
    for layout in ("contiguous", "channels_last")
}
SHAPES = (
    "64x112x112:2/2/0", "64x112x112:3/2/1", "256x28x28:2/2/0", "64x56x56:5/1/2", "64x56x56:7/2/3",
    "2048x7x7:7/7/0",
)  # fmt: skip
"""Of each family of kernels one, and windows that are moved by a pixel."""


def second_phases(folder: Path, scratch: Path, first: Path) -> list[Phase]:
    """The tests of all window functions, what they cost, and the profile of the slowest pass of the
    results in ``first``.

    Raises:
        SystemExit: there are none.
    """
    slowest = slowest_pass(read_pooling(first))
    return [
        Phase([[tests()], *compilation(scratch)], 150),
        Phase([measurements(folder)], 120),
        Phase([[profile(*slowest)]], 90),
    ]


def tests() -> Stage:
    command = pytest_command("gpu and not whole_gpu", *LATER_TESTS)
    return Stage("tests of window functions", command, 150, FEW_THREADS)


def compilation(scratch: Path) -> list[list[Stage]]:
    """What is timed later, run once, so that its kernels are in the cache on disk."""
    commands = {
        name: poolings_command(scratch / f"{name}.json", *options, "--rounds", "1")
        for name, options in RUNS.items()
    }
    return [
        [Stage(f"compile for {name}", command, 150, FEW_THREADS)]
        for name, command in commands.items()
    ]


def measurements(folder: Path) -> list[Stage]:
    return [
        Stage(name, poolings_command(folder / f"{name}.json", *options), 30)
        for name, options in RUNS.items()
    ]


def poolings_command(out: Path, *options: str) -> tuple[str | Path, ...]:
    return (
        PYTHON, "benchmarks/poolings.py", "--device", "cuda", "--shapes", *SHAPES,
        "--batch-size", "64", *options, "--out", out,
    )  # fmt: skip


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
    return Stage("ncu", command, 90)
