"""Puts tables of the results into their pages: ``python experiments/results_page.py --help``."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    # From a clone, without installing: import from the repository, not from this script's folder.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from experiments.comparison import compare, complete_seeds
from experiments.figures import draw_errors
from experiments.head_norms import NormRow
from experiments.lambdas import LayerLambdas
from experiments.rows import Row, read_rows
from experiments.safe_start import StartRow
from experiments.tables import (
    differences_table,
    lambdas_table,
    norms_table,
    results_table,
    starts_table,
)
from training.errors import UserError, exit_code
from training.records.environment import REPOSITORY

RESULTS = REPOSITORY / "experiments" / "results"


def main(argv: Sequence[str] | None = None) -> int:
    """Write what the command line ``argv`` asks for."""
    options = make_parser().parse_args(argv)

    def write() -> None:
        runs = complete_seeds(read_rows(Row, options.results))
        lambdas = read_rows(LayerLambdas, options.lambdas)
        page = options.page.read_text()
        options.page.write_text(with_tables(page, tables(runs, lambdas)))
        networks = network_tables(
            read_rows(NormRow, options.norms), read_rows(StartRow, options.starts)
        )
        page = options.networks_page.read_text()
        options.networks_page.write_text(with_tables(page, networks))
        draw_errors(runs).savefig(options.plot, dpi=100)

    return exit_code("results_page.py", write)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Makes the tables and the plot of fashion_mnist.py's results, and the "
        "tables of head_norms.py's and safe_start.py's.",
        allow_abbrev=False,
    )
    for name, path, text in (
        ("--results", RESULTS / "fashion_mnist.csv", "of the runs"),
        ("--lambdas", RESULTS / "fashion_mnist_lambdas.csv", "of their pooling layers"),
        ("--page", REPOSITORY / "docs" / "results.md", "whose tables to replace"),
        ("--norms", RESULTS / "head_norms.csv", "of the heads' norms"),
        ("--starts", RESULTS / "safe_start.csv", "of the starts after replace_pooling"),
        ("--networks-page", REPOSITORY / "docs" / "networks.md", "whose tables to replace"),
        ("--plot", REPOSITORY / "docs" / "results.png", "to draw"),
    ):
        parser.add_argument(
            name, type=Path, default=path, metavar="FILE", help=f"{text} (default: %(default)s)"
        )
    return parser


def tables(runs: dict[str, list[Row]], lambdas: Sequence[LayerLambdas]) -> dict[str, str]:
    """Return the tables by name; of ``lambdas``, those of the seeds of ``runs`` alone."""
    seeds = {row.seed for rows in runs.values() for row in rows}
    errors = {pool: [row.top1_error for row in rows] for pool, rows in runs.items()}
    return {
        "results": results_table(runs),
        "differences": differences_table(compare(errors, "max_ent")),
        "lambdas": lambdas_table([each for each in lambdas if each.seed in seeds]),
    }


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
