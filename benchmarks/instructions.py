"""Counts what the kernels issue, without a GPU: ``python benchmarks/instructions.py --help``."""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

if __name__ == "__main__":
    # From a clone, without installing: import from the repository, not from this script's folder.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch

from benchmarks.gpus import GPUS
from benchmarks.instruction_counts import PASSES, annotated, count, launches, nvrtc_version
from benchmarks.instruction_results import InstructionResults, Row, write_instructions
from benchmarks.instruction_tables import lines, page
from benchmarks.sass.listing import find_nvdisasm
from benchmarks.shapes import NETWORKS, select_shapes
from gfgp_cupy.kernels import Launch
from training.argument_types import positive_int

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

OVERLAPPING = ("64x224x224:3/2/1", "256x56x56:3/2/1", "512x28x28:3/2/1", "512x14x14:3/2/1")
"""Windows of 3/2/1 on planes where the networks have others."""

LARGE_WINDOWS = ("64x56x56:5/1/2", "64x56x56:7/1/3", "64x56x56:7/2/3", "64x56x56:9/4/4")
"""Windows that overlap, of 25 elements and more."""


def main(argv: Sequence[str] | None = None) -> int:
    """Counts what the command line ``argv`` asks for."""
    parser = make_parser()
    options = parser.parse_args(argv)
    try:
        options.shapes = list(map(str, select_shapes(options.shapes)))
        find_nvdisasm()
    except ValueError as error:
        parser.error(f"--shapes: {error}")
    except FileNotFoundError as error:
        parser.error(str(error))
    all_results = []
    for arch in options.arch:
        rows = list(_rows(options, arch))
        results = InstructionResults(arch, nvrtc_version(), options.batch_size, rows)
        print(lines(results), flush=True)
        if options.out:
            write_instructions(results, options.out / f"instructions-sm_{arch}.json")
        all_results.append(results)
    if options.table:
        options.table.write_text(page(all_results))
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0] + ".", allow_abbrev=False)

    def add_choice(name: str, choices: Sequence[str], what: str) -> None:
        parser.add_argument(
            name, nargs="+", choices=choices, default=list(choices), metavar="NAME",
            help=f"{what}: {', '.join(choices)} (default: all)",
        )  # fmt: skip

    add_choice("--arch", list(GPUS), "compute capabilities")
    add_choice("--dtypes", list(DTYPES), "types")
    add_choice("--layouts", list(LAYOUTS), "memory formats")
    add_choice("--passes", PASSES, "passes")
    parser.add_argument(
        "--shapes",
        nargs="+",
        default=[*NETWORKS, *OVERLAPPING, *LARGE_WINDOWS],
        metavar="SHAPE",
        help=f"{', '.join(NETWORKS)} or CHANNELSxHEIGHTxWIDTH:KERNEL/STRIDE/PADDING "
        "(default: all networks, 3/2/1 on other planes, and larger windows)",
    )
    parser.add_argument(
        "--batch-size", type=positive_int, default=64, metavar="N", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where to write instructions-sm_90.json and its like",
    )
    parser.add_argument(
        "--table", type=Path, metavar="FILE", help="Markdown file to write, of all architectures"
    )
    parser.add_argument(
        "--annotate",
        type=Path,
        metavar="FOLDER",
        help="where to write the kernels' machine code, and how often a warp issues each line",
    )
    return parser


def _rows(options: argparse.Namespace, arch: str) -> Iterator[Row]:
    """All launches, those of a type and memory format in a process of their own."""
    parts = list(itertools.product(options.dtypes, options.layouts))
    jobs = [(options, arch, dtype, layout) for dtype, layout in parts]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(len(jobs), os.cpu_count() or 1), mp_context=context) as pool:
        for rows in pool.map(count_part, *zip(*jobs, strict=True)):
            yield from rows


def count_part(options: argparse.Namespace, arch: str, dtype: str, layout: str) -> list[Row]:
    """The rows of one type and memory format."""
    rows = []
    for shape in select_shapes(options.shapes):
        windows = options.batch_size * shape.output_elements
        for name, launch in launches(shape, DTYPES[dtype], LAYOUTS[layout], options.batch_size):
            if name in options.passes:
                row = Row(dtype, layout, str(shape), name, count(launch, arch, windows))
                rows.append(row)
                if options.annotate:
                    _annotate(options.annotate, launch, row, arch)
    return rows


def _annotate(folder: Path, launch: Launch, row: Row, arch: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    words = (f"sm_{arch}", row.dtype, row.layout, row.shape, row.name, launch.name)
    name = "-".join(words).replace("/", "_").replace(":", "-").replace(" ", "_")
    (folder / f"{name}.txt").write_text(annotated(launch, arch) + "\n")


if __name__ == "__main__":
    sys.exit(main())
