"""Does guided pooling help? The runs of docs/results.md: ``python experiments/guided_pooling.py
--help``.

What is run, and why, is in ``experiments/pooling_study/plan.py``.
"""

import argparse
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

if __name__ == "__main__":
    # From a clone, without installing: import from the repository, not from this script's folder.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch

from experiments.pooling_study.costs import measure_costs
from experiments.pooling_study.examples import keep_example_images
from experiments.pooling_study.pilot import pilot_run
from experiments.pooling_study.plan import RECIPES, PlannedRun, plan_of
from experiments.pooling_study.rows import Outcome, add_outcome, left_of
from experiments.pooling_study.runs import Setting, make_run
from experiments.pooling_study.tasks import DATA
from experiments.rows import write_rows
from training.argument_types import positive_float, positive_int
from training.atomic_write import remove_leftovers
from training.checkpoints.lock import locked
from training.errors import UserError, exit_code

RESULTS = {
    "study": "results/guided_pooling",
    "longer": "results/guided_pooling_longer",
    "larger": "results/guided_pooling_cuda",
}
JOBS = {"cpu": len(os.sched_getaffinity(0)), "cuda": 4}
"""Runs at once. More than a few only share a GPU's time: all of them would end late."""


def main(argv: Sequence[str] | None = None) -> int:
    """Make the runs of the command line ``argv`` that are not in the results yet."""
    options = make_parser().parse_args(argv)
    if options.results is None:
        options.results = Path(RESULTS[name_of_plan(options)])
    if options.jobs is None:
        options.jobs = JOBS[options.device]
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        work = {
            "plan": run_plan,
            "longer": run_longer,
            "pilot": run_pilot,
            "costs": run_costs,
        }[options.work]
        return exit_code("guided_pooling.py", lambda: work(options))
    except KeyboardInterrupt:
        again = "begins again" if options.work in ("pilot", "costs") else "goes on"
        print(f"guided_pooling.py: interrupted; the same command {again}", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Trains two networks under thirteen poolings on two tasks, as "
        "experiments/pooling_study/plan.py says: "
        f"{len(plan_of('study'))} runs, 40 to 50 hours of one processor core. Every run that is "
        "finished is added to the files in --results, and one that was interrupted goes on after "
        "its last epoch, so that it can be stopped and started again at any time.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu",
        help="cuda makes the larger runs, of ResNet-18 at full width (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", type=positive_int, metavar="N",
        help="runs at once, each with one thread (default: the processor's cores, {cpu}; with "
        "--device cuda {cuda})".format(**JOBS),
    )  # fmt: skip
    parser.add_argument(
        "--minutes", type=positive_float, default=math.inf, metavar="N",
        help="begin no epoch after so many (default: all runs)",
    )  # fmt: skip
    parser.add_argument(
        "work", nargs="?", choices=("plan", "longer", "pilot", "costs"), default="plan",
        help="the planned runs; the longer ones of the pairs that still gained in the end, "
        f"{len(plan_of('longer'))} runs, 20 to 26 hours of a core; runs under max pooling by the "
        "planned recipes, scored on training images that they do not learn from; or the time of a "
        "step under each pooling, on a machine with nothing else to do (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--data", default=DATA, metavar="DIR",
        help="folder with Fashion-MNIST's four files (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--results", type=Path, metavar="DIR",
        help="(default: {study}; of the longer runs {longer}; with --device cuda {larger})".format(
            **RESULTS
        ),
    )  # fmt: skip
    parser.add_argument(
        "--unfinished", type=Path, metavar="DIR",
        help="where the networks of runs are that are not finished (default: unfinished in "
        "--results)",
    )  # fmt: skip
    return parser


def name_of_plan(options: argparse.Namespace) -> str:
    """Return which of ``RECIPES`` the runs are of."""
    if options.device == "cuda":
        return "larger"
    return "longer" if options.work == "longer" else "study"


def run_plan(options: argparse.Namespace) -> None:
    """Make what is left of the plan, as many runs at once as ``options`` has jobs.

    Raises:
        UserError: another command is making them, or a run fails.
    """
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch finds no GPU here; leave it out")
    unfinished = options.unfinished or options.results / "unfinished"
    with locked(options.results, "--results"), locked(unfinished, "--unfinished"):
        make_what_is_left(options, unfinished)


def run_longer(options: argparse.Namespace) -> None:
    """Make what is left of the longer runs; see ``run_plan``."""
    refuse_gpu(options)
    run_plan(options)


def make_what_is_left(options: argparse.Namespace, unfinished: Path) -> None:
    for folder in (options.results, unfinished):
        remove_leftovers(folder)
    planned = plan_of(name_of_plan(options))
    left = left_of(planned, options.results)
    finished = len(planned) - len(left)
    deadline = time.time() + 60 * options.minutes
    setting = Setting.here(options.data, options.device, unfinished, deadline)
    for run, outcome in outcomes(left, setting, options.jobs):
        add_outcome(outcome, options.results)
        setting.file_of(run).unlink()
        keep_example_images(options.results, options.data)
        finished += 1
        print(
            f"{finished} of {len(planned)}: {run.task}, {run.network}, {run.pooling}, seed "
            f"{run.seed}: top-1 error {outcome.run.top1_error:.2f}%, {outcome.run.seconds:.0f} s",
            flush=True,
        )
    if finished < len(planned):
        begun = sum(setting.file_of(run).exists() for run in left)
        print(
            f"--minutes {options.minutes:g}: {finished} of {len(planned)} runs are finished, and "
            f"{begun} are begun, in {unfinished}; the same command goes on"
        )


def run_pilot(options: argparse.Namespace) -> None:
    """Make the pilot's runs, which cannot be interrupted."""
    refuse_gpu(options)
    options.results.mkdir(parents=True, exist_ok=True)
    with processes(options.jobs) as pool:
        made = [
            pool.submit(pilot_run, *cell, recipe, options.data)
            for cell, recipe in RECIPES["study"].items()
        ]
        write_rows([row for run in made for row in run.result()], options.results / "pilot.csv")


def run_costs(options: argparse.Namespace) -> None:
    """Time a step under each pooling, in a process of its own."""
    refuse_gpu(options)
    options.results.mkdir(parents=True, exist_ok=True)
    with processes(1) as pool:
        rows = pool.submit(measure_costs, RECIPES["study"], options.data).result()
    write_rows(rows, options.results / "costs.csv")


def refuse_gpu(options: argparse.Namespace) -> None:
    """Raise a UserError if ``options`` ask for a GPU, which only the plan's runs have a use for."""
    if options.device == "cuda":
        raise UserError(f"--device cuda: {options.work} is of the runs on a CPU; leave it out")


def outcomes(
    runs: Sequence[PlannedRun], setting: Setting, jobs: int
) -> Iterator[tuple[PlannedRun, Outcome]]:
    """Make ``runs`` in so many processes; return each that is finished before the deadline.

    Raises:
        UserError: of a run, or a process has died.
    """
    with processes(jobs) as pool:
        made = {pool.submit(make_run, run, setting): run for run in runs}
        for future in as_completed(made):
            outcome = future.result()
            if outcome is not None:
                yield made[future], outcome


def begin_process() -> None:
    """Compute with one thread, and stop when the command stops, even if that is killed."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command hears it, too, and stops this
    threading.Thread(target=_stop_after_parent, daemon=True).start()


def _stop_after_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def processes(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Yield so many processes, of one thread each, which end with the block.

    Raises:
        UserError: one of them has died, or the GPU has too little memory.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=begin_process) as pool:
        try:
            yield pool
        except BaseException as error:
            # Nothing more is to be waited for.
            for process in multiprocessing.active_children():
                process.kill()
            if isinstance(error, BrokenProcessPool | torch.OutOfMemoryError):
                advice = f"lower --jobs {jobs}" if jobs > 1 else "free some"
                raise UserError(
                    "a process that made a run died or had too little memory, which is what they "
                    f"die of as a rule: {advice}"
                ) from error
            raise


if __name__ == "__main__":
    sys.exit(main())
