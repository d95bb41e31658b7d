"""What a second session on a GPU runs, by what the first has left: see ``gpu_session.py``."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.contenders import OP
from benchmarks.results import PassTime, PoolingResults, PoolingSettings, read_results
from benchmarks.stages import Phase, Stage

__all__ = ["second_phases"]

PYTHON = sys.executable

STUDY_NEEDS = ("PIL", "torchvision")


def second_phases(folder: Path, scratch: Path, first: Path, data: Path) -> list[Phase]:
    """The comparison on Fashion-MNIST if ``data`` has its files, or the profile of the slowest pass
    of the results in ``first``.

    Raises:
        SystemExit: there is neither.
    """
    missing = what_comparison_lacks(data)
    if missing is None:
        return [Phase(comparison(folder, scratch, data), 130)]
    print(f"{missing}: the slowest pass is profiled instead", flush=True)
    return [Phase([[profile(*slowest_pass(read_pooling(first)))]], 130)]


def what_comparison_lacks(data: Path) -> str | None:
    """What the comparison cannot do without, or ``None`` if all is there."""
    if not any(data.glob("train-images-idx3-ubyte*")):
        return f"{data} holds no Fashion-MNIST"
    missing = [name for name in STUDY_NEEDS if importlib.util.find_spec(name) is None]
    return f"experiments/guided_pooling.py needs {', '.join(missing)}" if missing else None


def comparison(folder: Path, scratch: Path, data: Path) -> list[list[Stage]]:
    """The larger runs of the study of guided pooling, as many as there is time for."""
    return [[Stage(
        "guided pooling",
        (
            PYTHON, "experiments/guided_pooling.py", "--device", "cuda", "--jobs", "4",
            "--minutes", "1.8", "--data", data, "--results", folder / "guided_pooling",
            "--unfinished", scratch / "unfinished",
        ),
        130,
    )]]  # fmt: skip


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
