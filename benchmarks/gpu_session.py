"""Everything to run on a machine with a GPU, in about nine minutes at most.

    python benchmarks/gpu_session.py FOLDER

First the tests that need a GPU, NVIDIA's compute-sanitizer and the run-time compilation of all that
is timed, side by side; then, one after the other, the tests that need most of the GPU's memory, the
benchmarks and the report. Every stage has a time limit, and the later ones run whatever became of
it. Of what requirements.txt names, PyTorch, CuPy, pytest and Hypothesis suffice; the report lacks
its plot without Matplotlib. FOLDER gets the benchmarks' JSON files,
``report.md``, ``report.png`` and ``session.log`` with what each stage printed. The exit code is 0
if all stages passed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]

SANITIZER = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"

POOLING_RUNS = {
    f"pooling-{dtype}-{layout}": ("--dtype", dtype, "--layout", layout)
    for dtype in ("float32", "bfloat16")
    for layout in ("contiguous", "channels_last")
}
ON_GPU, LARGE_TENSORS = "cuda and not on_cpu", "more_than_2_31"
USES_A_GPU = re.compile(r"\b(needs_cuda|each_backend|each_implementation)\b")

INTERRUPT_SECONDS = 5
"""What a stage that is interrupted at its limit has for telling how far it has come."""

NETWORK_OPTIONS = ("--amp", "bfloat16", "--layout", "channels_last")


@dataclass(frozen=True)
class Stage:
    """A command, and the seconds that it may take.

    Attributes:
        environment: variables beside this process's.
    """

    name: str
    command: Sequence[str | Path]
    seconds: float
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a stage ended: ``"passed"``, or why not."""

    stage: str
    verdict: str
    seconds: float


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("folder", type=Path, help="where the results go; made if missing")
    folder = parser.parse_args(argv).folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    log = SessionLog(folder / "session.log")
    with tempfile.TemporaryDirectory() as scratch:
        outcomes = run_tracks(preparation(Path(scratch)), log)
    outcomes += run_tracks([measurements(folder)], log)
    outcomes += run_tracks([[report(folder)]], log)
    return 0 if all(outcome.verdict == "passed" for outcome in outcomes) else 1


def preparation(scratch: Path) -> list[list[Stage]]:
    """What is not timed: stages of one list follow each other, the lists run side by side."""
    target = (sys.executable, "benchmarks/sanitizer_target.py")
    each_tensor_alone = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    sanitizer = (SANITIZER, "--error-exitcode", "1", "--kernel-name", "kns=max_ent_pool2d")
    return [
        [Stage("tests", pytest_command(f"{ON_GPU} and not {LARGE_TENSORS}"), 200)],
        [
            Stage("compile for the sanitizer", target, 50),
            Stage(
                "memcheck",
                (*sanitizer, "--tool", "memcheck", "--report-api-errors", "no", *target),
                75,
                each_tensor_alone,
            ),
            Stage("racecheck", (*sanitizer, "--tool", "racecheck", *target), 75),
        ],
        *(
            [Stage(
                f"compile for {name}",
                pooling_command(scratch / f"{name}.json", options, "--repeats", "1"),
                200,
            )]
            for name, options in POOLING_RUNS.items()
        ),
    ]  # fmt: skip


def measurements(folder: Path) -> list[Stage]:
    """What has the GPU to itself: tests that fill its memory, and what is timed."""
    timed = [
        Stage(name, pooling_command(folder / f"{name}.json", options, "--seconds", "38"), 55)
        for name, options in POOLING_RUNS.items()
    ]
    networks = (
        sys.executable, "benchmarks/networks.py", "--device", "cuda", *NETWORK_OPTIONS,
        "--seconds", "25", "--out", folder / "networks.json",
    )  # fmt: skip
    large = Stage("large tensors", pytest_command(f"{ON_GPU} and {LARGE_TENSORS}"), 50)
    return [large, *timed, Stage("networks", networks, 45)]


def report(folder: Path) -> Stage:
    """The tables and the plot of those results that are there."""
    results = [folder / f"{name}.json" for name in (*POOLING_RUNS, "networks")]
    command = (
        sys.executable, "benchmarks/report.py", *(path for path in results if path.exists()),
        "--table", folder / "report.md", "--plot", folder / "report.png",
    )  # fmt: skip
    return Stage("report", command, 20)


def pytest_command(chosen: str) -> tuple[str, ...]:
    """Runs the ``chosen`` tests (as by ``-k``) in one process, since all share one GPU, and names
    each as it ends, for a log that breaks off to tell what is missing."""
    options = ("-o", "addopts=", "-v", "-ra", "-m", "not slow", "-k", chosen)
    return (sys.executable, "-m", "pytest", *options, *gpu_test_files())


def gpu_test_files() -> list[str]:
    """The modules with tests that run on every backend or need a GPU. The others may import what
    is not installed here, and pytest runs nothing where it cannot import one."""
    files = sorted((REPOSITORY / "tests").glob("test_*.py"))
    return [
        str(file.relative_to(REPOSITORY)) for file in files if USES_A_GPU.search(file.read_text())
    ]


def pooling_command(out: Path, options: Sequence[str], *more: str) -> tuple[str | Path, ...]:
    return (
        sys.executable, "benchmarks/pooling.py", "--device", "cuda", *options, *more, "--out", out,
    )  # fmt: skip


class SessionLog:
    """A file that stages write to whole, one after the other."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        path.write_text("")

    def add(self, outcome: Outcome, output: str) -> None:
        """Appends what a stage printed; prints its outcome."""
        line = f"{outcome.stage}: {outcome.verdict} ({outcome.seconds:.0f} s)"
        with self._lock, self._path.open("a") as file:
            file.write(f"==== {line}\n{output}\n")
            print(line, flush=True)


def run_tracks(tracks: Sequence[Sequence[Stage]], log: SessionLog) -> list[Outcome]:
    """Runs lists of stages side by side, the stages of each in order."""

    def run_track(stages: Sequence[Stage]) -> list[Outcome]:
        return [run_stage(stage, log) for stage in stages]

    with ThreadPoolExecutor(len(tracks)) as pool:
        return [outcome for track in pool.map(run_track, tracks) for outcome in track]


def run_stage(stage: Stage, log: SessionLog) -> Outcome:
    """Runs the stage's command from the repository, with its children, until its limit."""
    started = time.monotonic()
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        try:
            process = subprocess.Popen(
                stage.command, cwd=REPOSITORY, env={**os.environ, **stage.environment},
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        except FileNotFoundError as error:
            verdict = f"failed: {error}"
        else:
            verdict = wait(process, stage.seconds)
        output.seek(0)
        outcome = Outcome(stage.name, verdict, time.monotonic() - started)
        log.add(outcome, output.read())
    return outcome


def wait(process: subprocess.Popen, seconds: float) -> str:
    """The verdict on a process that leads its own session."""
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT)
        # Not waited for, the process keeps its group's number to itself even if it has ended.
        time.sleep(INTERRUPT_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"failed: not done in {seconds:g} s"
    return "passed" if code == 0 else f"failed: exit code {code}"


if __name__ == "__main__":
    sys.exit(main())
