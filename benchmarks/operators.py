"""Times Max-Ent pooling against its alternatives: ``python benchmarks/operators.py --help``."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    # From a clone, without installing: import from the repository, not from this script's folder.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch

from benchmarks.allocator import keep_freed_memory
from benchmarks.contenders import COMPILED
from benchmarks.environment import environment_of
from benchmarks.measurement import Bench, measure, measure_launch_costs
from benchmarks.options import add_common_options
from benchmarks.results import PoolingResults, PoolingSettings, write_results
from benchmarks.shapes import NETWORKS, Shape, select_shapes
from benchmarks.timing import Cache, cache_bytes
from training.argument_types import positive_int

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64)
}

ROTATED_CACHES = 4
"""Inputs are taken in turn from memory of so many times the cache's size."""

COMPILE_SHARE = 0.5
"""Part of the run's time that may go into ``torch.compile``, which takes seconds a shape."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark of the command line ``argv`` and writes its results; 1 where a contender
    failed."""
    parser = make_parser()
    options = parser.parse_args(argv)
    if options.batch_size is None:
        options.batch_size = 64 if options.device == "cuda" else 8
    if options.batch_size < 2:
        parser.error("--batch-size must be at least 2: the GFGP layer normalises over the batch")
    try:
        shapes = select_shapes(options.shapes)
    except ValueError as error:
        parser.error(f"--shapes: {error}")
    # The profiler, which counts the CPU's memory, complains where there is no GPU.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    results = run(options, shapes)
    print(f"{len(results.times)} times in {options.out}")
    failures = [f"{one.contender} at {one.shape}" for one in results.unavailable if one.failed]
    if failures:
        print(f"failed: {', '.join(failures)}", file=sys.stderr)
    return 1 if failures else 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0] + ".", allow_abbrev=False)
    add_common_options(parser, out="pooling.json", repeats=50, seconds=180)
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="(default: %(default)s)")
    parser.add_argument(
        "--shapes",
        nargs="+",
        default=list(NETWORKS),
        metavar="SHAPE",
        help=f"{', '.join(NETWORKS)}, or CHANNELSxHEIGHTxWIDTH:KERNEL/STRIDE/PADDING such as "
        "64x112x112:3/2/1 (default: all networks)",
    )
    parser.add_argument(
        "--batch-size",
        type=positive_int,
        metavar="N",
        help="samples, at least 2 (default: 64 on a GPU, 8 on the CPU)",
    )
    return parser


def run(options: argparse.Namespace, shapes: Sequence[Shape]) -> PoolingResults:
    """Measures every shape; after each, writes what there is to ``options.out``."""
    started = time.monotonic()
    bench = make_bench(options, shapes)
    results = PoolingResults(
        environment=environment_of(bench.device, "operators.py", options),
        settings=PoolingSettings(
            device=options.device,
            dtype=options.dtype,
            layout=options.layout,
            batch_size=options.batch_size,
            shapes=[str(shape) for shape in shapes],
            repeats=options.repeats,
            seconds=options.seconds,
            cache_bytes=bench.cache.size,
            rotated_bytes=bench.memory.nbytes,
        ),
        launches=[],
        times=[],
        memory=[],
        first_calls=[],
        unavailable=[],
    )
    if bench.device.type == "cuda":
        measure_launch_costs(bench, results)
    # The largest first: where it takes longer than its share, the others make up for it.
    left = sorted(shapes, key=lambda shape: shape.input_elements, reverse=True)
    # Half of the time by size, half alike, for what does not depend on the size: compiling.
    mean = sum(shape.input_elements for shape in shapes) / len(shapes)
    while left:
        now = time.monotonic()
        remaining = options.seconds - (now - started)
        weights = [shape.input_elements + mean for shape in left]
        deadline = now + remaining * weights[0] / sum(weights)
        compiling = sum(call.seconds for call in results.first_calls if call.contender == COMPILED)
        may_compile = compiling < COMPILE_SHARE * options.seconds
        try:
            measured = measure(
                left.pop(0), bench, deadline=deadline, may_compile=may_compile, results=results
            )
        finally:
            write_results(results, options.out)
        print(measured, flush=True)
    return results


def make_bench(options: argparse.Namespace, shapes: Sequence[Shape]) -> Bench:
    device, dtype = torch.device(options.device), DTYPES[options.dtype]
    cache = Cache(device, cache_bytes(device))
    largest = options.batch_size * max(shape.input_elements for shape in shapes)
    # At least two of the largest, with room for their alignment.
    elements = max(ROTATED_CACHES * cache.size // dtype.itemsize, 2 * largest + 1024)
    memory = torch.randn(elements, dtype=dtype, device=device)
    return Bench(
        device=device,
        dtype=dtype,
        layout=options.layout,
        batch_size=options.batch_size,
        repeats=options.repeats,
        memory=memory,
        cache=cache,
        shuffle=random.Random(0),
    )


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
