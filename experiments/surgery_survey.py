"""``replace_pooling`` in other people's networks: ``python experiments/surgery_survey.py --help``.

torchvision whole, timm by family, and transformers, segmentation-models-pytorch, ultralytics and
MONAI where they are installed; without pre-trained weights.
"""

import argparse
import gc
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from fnmatch import fnmatch
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

if __name__ == "__main__":
    # From a clone, without installing: import from the repository, not from this script's folder.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch

from experiments.results_page import RESULTS, with_tables
from experiments.rows import read_rows, write_rows
from experiments.survey.catalogue import LIBRARIES, networks_of
from experiments.survey.network import Network
from experiments.survey.outcome import empty_row, survey
from experiments.survey.row import SurveyRow
from experiments.survey.tables import tables
from gfgp_cupy import use_backend
from training.argument_types import positive_int
from training.errors import exit_code
from training.records.environment import REPOSITORY, device_name, git_state, versions_of

PAGE = REPOSITORY / "docs" / "surgery-survey.md"


def main(argv: Sequence[str] | None = None) -> int:
    """Survey the networks of the command line ``argv`` that are not in the results yet."""
    options = make_parser().parse_args(argv)

    def work() -> None:
        networks = _selected(options.only)
        if options.list:
            print("\n".join(each.title for each in networks))
            return
        survey_all(
            networks,
            options.results,
            again=options.again,
            jobs=options.jobs,
            time_limit=options.time_limit,
        )
        write_page(options.results, options.page)

    return exit_code("surgery_survey.py", work)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Builds each network without pre-trained weights, counts the poolings that a "
        "forward pass calls, replaces them, counts again, trains a step, and adds a row to "
        "--results. Networks that have a row are left out, so that it can be stopped and started "
        "again. In the end it writes the tables of --page.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--only", nargs="+", default=["*"], metavar="PATTERN",
        help="such as 'timm:resnet*' 'smp:*' (default: all)",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="print their names and stop")
    parser.add_argument("--again", action="store_true", help="also those that have a row")
    parser.add_argument(
        "--jobs", type=positive_int, default=1, metavar="N",
        help="networks at a time, each in a process of one thread (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--time-limit", type=positive_int, default=600, metavar="SECONDS",
        help="of a network (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--results", type=Path, default=RESULTS / "surgery_survey.csv", metavar="FILE",
        help="rows; the versions go beside them, as JSON (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--page", type=Path, default=PAGE, metavar="FILE", help="(default: %(default)s)"
    )
    return parser


def survey_all(
    networks: Sequence[Network], results: Path, again: bool, jobs: int, time_limit: int
) -> None:
    """Survey ``networks``, each in a process of its own; write ``results`` after each."""
    rows = {row.network: row for row in read_rows(SurveyRow, results)} if results.exists() else {}
    commit = git_state().commit or ""
    todo = [each for each in networks if again or each.title not in rows]
    for done, row in enumerate(_in_processes(todo, jobs, time_limit), 1):
        rows[row.network] = replace(row, commit=commit)
        write_rows(sorted(rows.values(), key=lambda each: each.network.lower()), results)
        print(
            f"{done}/{len(todo)} {row.network}: {row.outcome}", row.options, row.error, flush=True
        )
    if todo:
        write_environment(results.with_suffix(".json"))


def write_environment(file: Path) -> None:
    """Write the machines and the software of the rows, to which others may have been added before
    on other machines."""
    before = json.loads(file.read_text())["device"].split(" and ") if file.exists() else []
    git = git_state()
    environment = {
        "device": " and ".join(dict.fromkeys([*before, device_name(torch.device("cpu"))])),
        "python": sys.version.split()[0],
        "versions": versions_of("torch", "numpy", "numba", *LIBRARIES.values()),
        "backend": "torch",
        "git": {"commit": git.commit, "dirty": git.dirty},
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }
    file.write_text(json.dumps(environment, indent=2) + "\n")


def write_page(results: Path, page: Path) -> None:
    """Put the tables of ``results`` into ``page``.

    Raises:
        UserError: there are no results, or the page has no place for their tables.
    """
    rows = read_rows(SurveyRow, results)
    made_with = json.loads(results.with_suffix(".json").read_text())
    page.write_text(with_tables(page.read_text(), tables(rows, made_with)))


@dataclass(frozen=True)
class _Job:
    network: Network
    process: BaseProcess
    ends: float


def _in_processes(networks: Iterable[Network], jobs: int, time_limit: int) -> Iterable[SurveyRow]:
    # Forked, a process has the libraries imported already. One network each, so that its memory is
    # given back, and that it can be ended.
    forks = "fork" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if forks else "spawn")
    gc.freeze()  # lest collecting garbage in a fork copies what it shares with its parent
    waiting, running = list(networks)[::-1], dict[Connection, _Job]()
    while waiting or running:
        while waiting and len(running) < jobs:
            network = waiting.pop()
            receive, send = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(network, send))
            process.start()
            send.close()
            running[receive] = _Job(network, process, time.monotonic() + time_limit)
        soonest = min(job.ends for job in running.values())
        ready = wait(list(running), timeout=max(0.0, soonest - time.monotonic()))
        for receive in [*ready] or [each for each in running if running[each].ends == soonest]:
            yield _result(running.pop(receive), receive, ready=bool(ready), limit=time_limit)


def _work(network: Network, send: Connection) -> None:
    torch.set_num_threads(1)
    # What libraries print about themselves would hide the progress.
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
        os.dup2(nowhere.fileno(), sys.stderr.fileno())
        # Poolings of any sizes, few times each: compiling them would take most of the time.
        with use_backend("torch"):
            send.send(survey(network))


def _result(job: _Job, receive: Connection, ready: bool, limit: int) -> SurveyRow:
    error = f"took more than {limit} s"
    try:
        if ready:
            return receive.recv()
    except EOFError:
        job.process.join()
        error = f"its process ended with code {job.process.exitcode}"
    finally:
        job.process.kill()
        job.process.join()
        receive.close()
    return replace(empty_row(job.network), error=error)


def _selected(patterns: Sequence[str]) -> list[Network]:
    # Libraries of which nothing is asked for need not be imported.
    prefixes = [pattern.partition(":")[0] for pattern in patterns]
    libraries = {
        name: module
        for name, module in LIBRARIES.items()
        if any(fnmatch(name, prefix) for prefix in prefixes)
    }
    return [
        network
        for network in networks_of(libraries)
        if any(fnmatch(network.title, pattern) for pattern in patterns)
    ]


if __name__ == "__main__":
    sys.exit(main())
