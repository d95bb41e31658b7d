"""Makes a table and a plot of results: ``python benchmarks/summary.py --help``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    # From a clone, without installing: import from the repository, not from this script's folder.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.results import read_results
from benchmarks.tables import markdown


def main(argv: Sequence[str] | None = None) -> int:
    """Writes what the command line ``argv`` asks for; without files, the table is printed."""
    options = make_parser().parse_args(argv)
    results = {path: read_results(path) for path in options.results}
    text = "\n".join(markdown(one, path.name) for path, one in results.items())
    text = text or "There are no results.\n"
    if options.table is None:
        print(text, end="")
    else:
        options.table.write_text(text)
    if options.plot is not None:
        # Where a GPU is measured, Matplotlib may be missing; the table can do without it.
        from benchmarks.charts import draw

        draw(list(results.values())).savefig(options.plot, dpi=100)
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Makes a table and a plot of the benchmarks' results.",
        allow_abbrev=False,
    )
    parser.add_argument("results", nargs="*", type=Path, metavar="RESULTS", help="JSON files")
    parser.add_argument(
        "--table", type=Path, metavar="FILE", help="Markdown to write (default: print it)"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="PNG to write (default: no plot)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
