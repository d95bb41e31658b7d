"""What a second session on a GPU runs, by what the first has left: see ``gpu_session.py``."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contenders import OP
from benchmarks.gpu_session import FEW_THREADS, LATER_TESTS, pytest_command
from benchmarks.results import PoolingResults, read_results
from benchmarks.stages import Phase, Stage

__all__ = ["second_phases"]

PYTHON = sys.executable

RUNS = {
    f"poolings-{dtype}-{layout}": ("--dtype", dtype, "--layout", layout)
    for dtype in ("float32", "bfloat16")
    for layout in ("contiguous", "channels_last")
}
SHAPES = (
    "64x112x112:2/2/0", "64x112x112:3/2/1", "256x28x28:2/2/0", "2048x7x7:7/7/0", "64x56x56:7/2/3",
    "64x56x56:5/1/2",
)  # fmt: skip
"""Of each family of kernels one, and windows that are moved by a pixel. What takes long comes last:
it gets the time that the others have left."""


@dataclass(frozen=True)
class Pass:
    """One pass of the operator, in the words of ``profile_target.py``."""

    shape: str
    direction: str
    dtype: str
    layout: str
    batch_size: int


FIXED_PASS = Pass("64x112x112:3/2/1", "backward", "bfloat16", "channels_last", batch_size=64)
"""What is profiled if nothing tells which pass is the slowest: the one with the most to compute of
those that the networks have."""


def second_phases(folder: Path, scratch: Path, first: Path) -> list[Phase]:
    """The tests of all window functions, the profile of the slowest pass of the results in
    ``first``, and what all window functions cost."""
    return [
        Phase([[tests()], *compilation(scratch)], 135),
        Phase([[profile(slowest_pass(first)), *measurements(folder)]], 156),
    ]


def tests() -> Stage:
    command = pytest_command("gpu and not whole_gpu", *LATER_TESTS)
    return Stage("tests of window functions", command, 135, FEW_THREADS)


def compilation(scratch: Path) -> list[list[Stage]]:
    """What is timed later, run once, so that its kernels are in the cache on disk."""
    commands = {
        name: poolings_command(scratch / f"{name}.json", *options, "--rounds", "1")
        for name, options in RUNS.items()
    }
    return [
        [Stage(f"compile for {name}", command, 135, FEW_THREADS)]
        for name, command in commands.items()
    ]


def measurements(folder: Path) -> list[Stage]:
    return [
        Stage(name, poolings_command(folder / f"{name}.json", *options, "--seconds", "14"), 24)
        for name, options in RUNS.items()
    ]


def poolings_command(out: Path, *options: str) -> tuple[str | Path, ...]:
    return (
        PYTHON, "benchmarks/poolings.py", "--device", "cuda", "--shapes", *SHAPES,
        "--batch-size", "64", *options, "--out", out,
    )  # fmt: skip


def slowest_pass(first: Path) -> Pass:
    """The operator's pass that stays farthest below the speed of a copy, by the results in
    ``first``; says so where there are none, and takes :data:`FIXED_PASS`."""
    fractions = {
        Pass(
            time.shape, time.direction, one.settings.dtype, one.settings.layout,
            one.settings.batch_size,
        ): time.fraction_of_copy
        for one in read_pooling(first)
        for time in one.times
        if time.contender == OP and time.direction != "both"
    }  # fmt: skip
    if not fractions:
        print(f"--after {first}: holds no times of {OP}, ncu takes {FIXED_PASS}", flush=True)
    return min(fractions, key=fractions.__getitem__, default=FIXED_PASS)


def read_pooling(folder: Path) -> list[PoolingResults]:
    """Those results of operators.py in ``folder`` that can be read; says why others cannot."""
    results = []
    for path in sorted(folder.glob("pooling-*.json")):
        try:
            results.append(read_results(path))
        except (AttributeError, OSError, ValueError, TypeError) as error:
            print(f"{path} is left out: {error}", flush=True)
    return results


def profile(slowest: Pass) -> Stage:
    """All that Nsight Compute measures of the kernels of one pass."""
    command = (
        shutil.which("ncu") or "/usr/local/cuda/bin/ncu", "--set", "full",
        "--clock-control", "none", "--profile-from-start", "off",
        PYTHON, "benchmarks/profile_target.py", "--shape", slowest.shape,
        "--direction", slowest.direction, "--dtype", slowest.dtype, "--layout", slowest.layout,
        "--batch-size", str(slowest.batch_size),
    )  # fmt: skip
    return Stage("ncu", command, 60)
