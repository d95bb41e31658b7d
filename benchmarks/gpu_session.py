"""Everything to run on a machine with a GPU, in about nine minutes at most.

    python benchmarks/gpu_session.py FOLDER

First the tests that need a GPU, NVIDIA's compute-sanitizer and the run-time compilation of all that
is timed, side by side; then the benchmarks, one after the other; then the report. Every stage has
a time limit, and the later ones run whatever became of it. FOLDER gets the benchmarks' JSON files,
``report.md``, ``report.png`` and ``session.log`` with what each stage printed. The exit code is 0
if all stages passed.
"""

from __future__ import annotations

import argparse
import os
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
    return 0 if all(outcome.verdict == "passed" for outcome in outcomes) else 1


def preparation(scratch: Path) -> list[list[Stage]]:
    """What is not timed: stages of one list follow each other, the lists run side by side."""
    target = (sys.executable, "benchmarks/sanitizer_target.py")
    each_tensor_alone = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    sanitizer = (SANITIZER, "--error-exitcode", "1", "--kernel-name", "kns=max_ent_pool2d")
    return [
        [Stage("tests", pytest_command(), 230)],
        [
            Stage("compile for the sanitizer", target, 60),
            Stage(
                "memcheck",
                (*sanitizer, "--tool", "memcheck", "--report-api-errors", "no", *target),
                80,
                each_tensor_alone,
            ),
            Stage("racecheck", (*sanitizer, "--tool", "racecheck", *target), 80),
        ],
        *(
            [Stage(
                f"compile for {name}",
                pooling_command(scratch / f"{name}.json", options, "--repeats", "1"),
                230,
            )]
            for name, options in POOLING_RUNS.items()
        ),
    ]  # fmt: skip


def measurements(folder: Path) -> list[Stage]:
    """What is timed, and its report."""
    timed = [
        Stage(name, pooling_command(folder / f"{name}.json", options, "--seconds", "42"), 60)
        for name, options in POOLING_RUNS.items()
    ]
    networks = (
        sys.executable, "benchmarks/networks.py", "--device", "cuda", *NETWORK_OPTIONS,
        "--seconds", "25", "--out", folder / "networks.json",
    )  # fmt: skip
    results = [folder / f"{name}.json" for name in (*POOLING_RUNS, "networks")]
    report = (
        sys.executable, "benchmarks/report.py", *results,
        "--table", folder / "report.md", "--plot", folder / "report.png",
    )  # fmt: skip
    return [*timed, Stage("networks", networks, 50), Stage("report", report, 20)]


def pytest_command() -> tuple[str, ...]:
    # One process: the tests for large tensors take much of the GPU's memory.
    one_process = ("-o", "addopts=-q")
    return (
        sys.executable, "-m", "pytest", *one_process, "tests", "-k", "cuda and not on_cpu", "-ra"
    )


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
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"failed: not done in {seconds:g} s"
    return "passed" if code == 0 else f"failed: exit code {code}"


if __name__ == "__main__":
    sys.exit(main())
