"""Puts tables of the results into their pages: ``python experiments/results_page.py --help``."""

import argparse
import hashlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    # From a clone, without installing: import from the repository, not from this script's folder.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from matplotlib.figure import Figure

from experiments.head_norms import NormRow
from experiments.pooling_study.answers import answer, answer_beside
from experiments.pooling_study.by_pair import by_pair, without_the_largest
from experiments.pooling_study.costs import CostRow
from experiments.pooling_study.course import convergence, hours, what_is_learned
from experiments.pooling_study.examples import read_example_images
from experiments.pooling_study.figures import draw_answers, draw_lambdas
from experiments.pooling_study.longer import (
    longer_course,
    longer_tables,
    with_longer_training,
)
from experiments.pooling_study.pilot import PilotRow
from experiments.pooling_study.rows import (
    EpochRow,
    ExampleRow,
    LambdaRow,
    RunRow,
    ShiftRow,
    read_runs,
)
from experiments.pooling_study.tables import larger_table, study_table
from experiments.rows import read_rows
from experiments.safe_start import StartRow
from experiments.tables import norms_table, starts_table
from training.errors import UserError, exit_code
from training.records.environment import REPOSITORY

RESULTS = REPOSITORY / "experiments" / "results"
STUDY, LARGER_STUDY = RESULTS / "guided_pooling", RESULTS / "guided_pooling_cuda"
LONGER_RUNS = RESULTS / "guided_pooling_longer"
FIGURES = {
    "results.png": ("runs.csv", "shifts.csv"),
    "results-lambda.png": ("epochs.csv", "lambdas.csv", "examples.csv", "example_images.csv"),
}
"""Each figure of the study, by its file in docs, and the files with its numbers."""

DRAWN_BY = (
    *("comparison.py", "pooling_study/answers.py", "pooling_study/examples.py"),
    *("pooling_study/figures.py", "pooling_study/plan.py", "pooling_study/poolings.py"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Write what the command line ``argv`` asks for."""
    options = make_parser().parse_args(argv)

    def write() -> None:
        of_study = study_tables(options.study, options.longer, options.larger)
        put(of_study, options.docs / "results.md")
        put({"answer": of_study["answer"]}, options.docs.parent / "README.md")
        networks = network_tables(
            read_rows(NormRow, options.norms), read_rows(StartRow, options.starts)
        )
        put(networks, options.docs / "networks.md")
        for name, figure in study_figures(options.study).items():
            metadata = {"Source": digest_of(options.study, FIGURES[name])}
            figure.savefig(options.docs / name, dpi=100, metadata=metadata)

    return exit_code("results_page.py", write)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Makes the tables and the figures of guided_pooling.py's results, and the "
        "tables of head_norms.py's and safe_start.py's.",
        allow_abbrev=False,
    )
    for name, path, text in (
        ("--study", STUDY, "folder of guided_pooling.py's results"),
        ("--longer", LONGER_RUNS, "folder of its results with longer, if there is one"),
        ("--larger", LARGER_STUDY, "folder of its results with --device cuda, if there is one"),
        ("--norms", RESULTS / "head_norms.csv", "file of the heads' norms"),
        ("--starts", RESULTS / "safe_start.csv", "file of the starts after replace_pooling"),
        (
            "--docs",
            REPOSITORY / "docs",
            "folder of the pages whose tables to replace, beside README.md",
        ),
    ):
        parser.add_argument(
            name, type=Path, default=path, metavar="PATH", help=f"{text} (default: %(default)s)"
        )
    return parser


def put(tables: dict[str, str], page: Path) -> None:
    """Give the file ``page`` its ``tables``; see ``with_tables``."""
    page.write_text(with_tables(page.read_text(encoding="utf-8"), tables), encoding="utf-8")


def study_tables(study: Path, longer: Path, larger: Path) -> dict[str, str]:
    """Return what stands on the study's page, by name."""
    runs = read_rows(RunRow, study / "runs.csv")
    costs = read_rows(CostRow, study / "costs.csv")
    longer_runs = read_runs(longer)
    longer_epochs = read_rows(EpochRow, longer / "epochs.csv") if longer_runs else []
    return {
        "answer": answer(runs),
        "results": study_table(runs, costs),
        "beside": answer_beside(runs),
        "by pair": by_pair(runs, read_rows(ShiftRow, study / "shifts.csv")),
        "without the largest": without_the_largest(runs),
        "learned": what_is_learned(read_rows(LambdaRow, study / "lambdas.csv")),
        "convergence": convergence(
            read_rows(PilotRow, study / "pilot.csv"), read_rows(EpochRow, study / "epochs.csv")
        ),
        "hours": hours(runs, "study"),
        "longer": longer_tables(runs, longer_runs),
        "course of the longer": longer_course(longer_runs, longer_epochs),
        "with longer training": with_longer_training(runs, longer_runs),
        "hours of the longer": hours(longer_runs, "longer"),
        "larger": larger_table(read_runs(larger)),
    }


def study_figures(study: Path) -> dict[str, Figure]:
    """Return the study's figures by their files' names."""
    answers = draw_answers(
        read_rows(RunRow, study / "runs.csv"), read_rows(ShiftRow, study / "shifts.csv")
    )
    lambdas = draw_lambdas(
        read_rows(EpochRow, study / "epochs.csv"),
        read_rows(LambdaRow, study / "lambdas.csv"),
        read_rows(ExampleRow, study / "examples.csv"),
        read_example_images(study),
    )
    return {"results.png": answers, "results-lambda.png": lambdas}


def digest_of(study: Path, names: Sequence[str]) -> str:
    """Return SHA-256 of the files of these names, and of the code that draws, which a figure
    carries as its source."""
    digest = hashlib.sha256()
    code = [REPOSITORY / "experiments" / name for name in DRAWN_BY]
    for path in (*(study / name for name in names), *code):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def network_tables(norms: Sequence[NormRow], starts: Sequence[StartRow]) -> dict[str, str]:
    """Return the tables of the page about networks by name."""
    return {"head norms": norms_table(norms), "starts": starts_table(starts)}


def with_tables(page: str, tables: dict[str, str]) -> str:
    """Return ``page`` with each of ``tables`` between its two comments, ``<!-- NAME -->`` and
    ``<!-- end of NAME -->``.

    Raises:
        UserError: the page has no such comments.
    """
    for name, table in tables.items():
        begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        if not pattern.search(page):
            raise UserError(f"the page has no {begin.strip()} and {end.strip()}; add them")
        page = pattern.sub(lambda _, text=begin + table + end: text, page)
    return page


if __name__ == "__main__":
    sys.exit(main())
