"""Everything to run on a machine with a GPU, in less than 495 seconds, and what to run next.

    python3 benchmarks/gpu_session.py FOLDER
    python3 benchmarks/gpu_session.py FOLDER2 --after FOLDER

The first: the tests that need a GPU, NVIDIA's compute-sanitizer and the run-time compilation of all
that is timed, side by side; then, one after the other, the tests that need the GPU to themselves,
the benchmarks and the report. The second, in less than 315 seconds: the tests of all window
functions, Nsight Compute's profile of the slowest pass that the first has measured, and what their
poolings cost. It may run on another machine, with a copy of the first's files; without them a fixed
pass is profiled.

Every stage has a time limit, and the later ones run whatever became of it. Of what requirements.txt
names, PyTorch, CuPy, pytest, pytest-xdist and Hypothesis suffice for the first. FOLDER gets
``session.log``, with each line that a stage prints as soon as it is printed (after 512 KiB of them,
the last ones when the stage ends), the benchmarks' JSON files, which grow as they measure, and
``report.md``: at most eight files. The exit code is 0 if all stages were run and passed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

if __name__ == "__main__":
    # From a clone, without installing: import from the repository, not from this script's folder.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.stages import Outcome, Phase, Session, Stage

PYTHON = sys.executable

POOLING_RUNS = {
    f"pooling-{dtype}-{layout}": ("--dtype", dtype, "--layout", layout)
    for dtype in ("float32", "bfloat16")
    for layout in ("contiguous", "channels_last")
}
NETWORK_OPTIONS = ("--amp", "bfloat16", "--layout", "channels_last")

FIRST_TESTS = (
    "tests/gfgp_cupy/test_pooling.py",
    "tests/gfgp_cupy/test_exactness.py",
    "tests/gfgp_cupy/backends/test_cuda.py",
)
"""The numbers of the operator, and what only a GPU shows."""

LATER_TESTS = ("tests/gfgp_cupy/kernels", "tests/gfgp_cupy/poolings")
"""Of all window functions: left to the second session."""

WHOLE_GPU_TESTS = "tests/gfgp_cupy/backends/test_cuda.py"
"""The file of all tests that need the GPU to themselves."""

TEST_PROCESSES = 8
"""They share one GPU; most of their time goes into compiling kernels and into Python."""

FEW_THREADS = {"OMP_NUM_THREADS": "2", "TORCHINDUCTOR_COMPILE_THREADS": "2"}
"""For what runs side by side: each process would take all processors for itself."""

EACH_TENSOR_ALONE = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}


def main(argv: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(argv)
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        if options.after is None:
            phases = first_phases(folder, Path(scratch))
        else:
            # It needs PyTorch, whose import the first session leaves to its stages.
            from benchmarks.second_session import second_phases

            phases = second_phases(folder, Path(scratch), options.after)
        outcomes = run_phases(phases, folder / "session.log")
    return 0 if all(outcome.verdict == "passed" for outcome in outcomes) else 1


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("folder", type=Path, help="where the results go; made if missing")
    parser.add_argument(
        "--after",
        type=Path,
        metavar="FOLDER",
        help="run what comes next, by those of the first session's results that are in that folder",
    )
    return parser


def run_phases(phases: Iterable[Phase], log: Path) -> list[Outcome]:
    """Runs the phases in order, whatever becomes of them."""
    with Session(log) as session:
        return [outcome for phase in phases for outcome in session.run(phase)]


def first_phases(folder: Path, scratch: Path) -> Iterator[Phase]:
    """Each is made when those before it have ended: the report is of what they have left."""
    yield Phase([tests(), sanitizer(), *compilation(scratch)], 195)
    yield Phase([measurements(folder)], 255)
    yield Phase([[report(folder)]], 15)


def tests() -> list[Stage]:
    rest = [f"--ignore={file}" for file in (*FIRST_TESTS, *LATER_TESTS)]
    return [
        Stage("first tests", pytest_command("gpu and not whole_gpu", *FIRST_TESTS), 85,
              FEW_THREADS),
        Stage("other tests", pytest_command("gpu and not whole_gpu", *rest, "tests"), 110,
              FEW_THREADS),
    ]  # fmt: skip


def sanitizer() -> list[Stage]:
    """Each tool on every kernel; the last as far as the time allows."""
    target = (PYTHON, "benchmarks/sanitizer_target.py")
    tool = (sanitizer_program(), "--error-exitcode", "1", "--tool")
    # The others need not look at PyTorch's kernels; what these write, this one has to see.
    ours = ("--kernel-name", "kns=_pool")
    memcheck = (*tool, "memcheck", *ours, "--report-api-errors", "no", *target)
    return [
        Stage("compile for the sanitizer", (*target, "--processes", "6"), 70),
        Stage("memcheck", memcheck, 65, EACH_TENSOR_ALONE),
        Stage("racecheck", (*tool, "racecheck", *ours, *target), 55),
        Stage("initcheck", (*tool, "initcheck", *target), 100, EACH_TENSOR_ALONE),
    ]


def compilation(scratch: Path) -> list[list[Stage]]:
    """What is timed later, run once, so that its kernels are in the caches on disk."""
    commands = {
        **{
            name: pooling_command(scratch / f"{name}.json", *options, "--repeats", "1")
            for name, options in POOLING_RUNS.items()
        },
        "networks": networks_command(scratch / "networks.json", "--repeats", "1"),
    }
    return [
        [Stage(f"compile for {name}", command, 180, FEW_THREADS)]
        for name, command in commands.items()
    ]


def measurements(folder: Path) -> list[Stage]:
    """What has the GPU to itself: tests that fill its memory or keep ahead of it, and what is
    timed."""
    return [
        Stage("tests alone", pytest_command("whole_gpu", WHOLE_GPU_TESTS, processes=1), 58),
        *(
            Stage(name, pooling_command(folder / f"{name}.json", *options, "--seconds", "30"), 40)
            for name, options in POOLING_RUNS.items()
        ),
        Stage("networks", networks_command(folder / "networks.json", "--seconds", "22"), 37),
    ]


def report(folder: Path) -> Stage:
    """The tables of those results that are there."""
    files = [folder / f"{name}.json" for name in (*POOLING_RUNS, "networks")]
    there = [path for path in files if path.exists()]
    command = (PYTHON, "benchmarks/summary.py", *there, "--table", folder / "report.md")
    return Stage("report", command, 15)


def pytest_command(chosen: str, *files: str, processes: int = TEST_PROCESSES) -> tuple[str, ...]:
    """Runs the tests of ``files`` whose marks are ``chosen``. Each is named as it begins and ends,
    and shown as it fails, for a log that breaks off to tell what there was."""
    return (
        PYTHON, "-m", "pytest", "-o", "addopts=", "-o", "faulthandler_timeout=50",
        "-p", "no:cacheprovider", "-v", "-ra", "--tb=short", "-m", chosen,
        "--continue-on-collection-errors", "--skip-not-installed", "--failures-at-once",
        "-n", str(processes), "--dist=worksteal", *files,
    )  # fmt: skip


def pooling_command(out: Path, *options: str) -> tuple[str | Path, ...]:
    return (PYTHON, "benchmarks/operators.py", "--device", "cuda", *options, "--out", out)


def networks_command(out: Path, *options: str) -> tuple[str | Path, ...]:
    return (
        PYTHON, "benchmarks/networks.py", "--device", "cuda", *NETWORK_OPTIONS, *options,
        "--out", out,
    )  # fmt: skip


def sanitizer_program() -> str:
    return shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"


if __name__ == "__main__":
    sys.exit(main())
