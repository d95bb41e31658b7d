"""Measures every pooling beside Max-Ent pooling: ``python benchmarks/poolings.py --help``."""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

if __name__ == "__main__":
    # From a clone, without installing: import from the repository, not from this script's folder.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from torch import Tensor

import gfgp_cupy.poolings  # noqa: F401  they register their window functions
from benchmarks.cuda_on_cpu import run_launch
from benchmarks.environment import environment_of
from benchmarks.memory import allocations_of, leave_out_of_collections
from benchmarks.pooling_costs import (
    Copy,
    PoolingCosts,
    Time,
    Traffic,
    page,
    read_costs,
    write_costs,
)
from benchmarks.shapes import Shape, select_shapes
from benchmarks.timing import Cache, cache_bytes, timer_of
from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.kernels import passes
from gfgp_cupy.ops import OPERATORS
from gfgp_cupy.window_function import WindowFunction
from gfgp_cupy.window_pooling import pool_windows
from training.argument_types import positive_float, positive_int

SHAPES = ("64x112x112:2/2/0", "64x112x112:3/2/1", "256x28x28:2/2/0")
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MAX_ENT = "max_ent"
FIXED = {"soft": (MAX_ENT, 1.0), "edscw": ("ada", 1.0)}
"""Poolings that are another's with a parameter that is a number."""

MIN_ROUNDS = 3
"""So many are made even where the time is up."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measures what the command line asks for; 1 where a limit does not hold or a pooling fails."""
    options = make_parser().parse_args(argv)
    if options.read:
        options.table.write_text(page([read_costs(path) for path in options.read]), "utf-8")
        return 0
    costs = run(options)
    print(page([costs]))
    beyond = [*failures(costs, options), *costs.beyond_the_limits()]
    print("\n".join(beyond), file=sys.stderr)
    return 1 if beyond else 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0] + ".", allow_abbrev=False)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), metavar="SHAPE")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32")
    parser.add_argument("--layout", choices=list(LAYOUTS), default="contiguous")
    parser.add_argument("--batch-size", type=positive_int, default=8, metavar="N")
    parser.add_argument("--rounds", type=positive_int, default=15, metavar="N")
    parser.add_argument(
        "--seconds", type=positive_float, metavar="S",
        help="time for all rounds, unless a few of each shape take longer (default: no limit)",
    )  # fmt: skip
    parser.add_argument(
        "--traffic", action="store_true",
        help="count the bytes of the CUDA kernels, too: needs Linux and a C++ compiler",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON file to write")
    parser.add_argument("--read", type=Path, nargs="+", metavar="FILE", help="measure nothing")
    parser.add_argument("--table", type=Path, metavar="FILE", help="page to write of --read")
    return parser


def run(options: argparse.Namespace) -> PoolingCosts:
    """Measures every shape; after each, writes what there is to ``options.out``."""
    end = math.inf if options.seconds is None else time.monotonic() + options.seconds
    shapes, device = select_shapes(options.shapes), torch.device(options.device)
    cache = Cache(device, cache_bytes(device)) if device.type == "cuda" else None
    costs = PoolingCosts(
        environment_of(device, "poolings.py", options), options.layout, options.dtype,
        options.batch_size, options.rounds, copies=[], times=[], traffic=[],
    )  # fmt: skip
    leave_out_of_collections()
    for number, shape in enumerate(shapes):
        now = time.monotonic()
        deadline = now + (end - now) / (len(shapes) - number)
        copies, times = measure(shape, options, cache, deadline)
        costs.copies.extend(copies)
        costs.times.extend(times)
        if options.out:
            write_costs(costs, options.out)
    for shape in shapes if options.traffic else ():
        costs.traffic.extend(traffic(shape, options))
        if options.out:
            write_costs(costs, options.out)
    return costs


def failures(costs: PoolingCosts, options: argparse.Namespace) -> list[str]:
    """The poolings that have no times, in lines."""
    measured = {(each.shape, each.pooling) for each in costs.times}
    return [
        f"{shape}, {name}: failed"
        for shape in map(str, select_shapes(options.shapes))
        for name in names()
        if (shape, name) not in measured
    ]


def names() -> list[str]:
    """Of all poolings that are measured."""
    return list(contenders(torch.empty(())))


def functions() -> dict[str, WindowFunction]:
    """The window functions by name, Max-Ent pooling first."""
    found = {name: each.function for (name, axes), each in OPERATORS.items() if axes == 2}
    return {MAX_ENT: found.pop(MAX_ENT), **found}


def contenders(parameter: Tensor) -> dict[str, tuple[WindowFunction, Tensor | float]]:
    """Each pooling's window function and parameter."""
    known = functions()
    fixed = {name: (known[of], value) for name, (of, value) in FIXED.items() if of in known}
    return {**{name: (function, parameter) for name, function in known.items()}, **fixed}


def images(shape: Shape, batch_size: int, layout: str, dtype: torch.dtype) -> Tensor:
    """Positive numbers, as a ReLU leaves them and a generalised mean wants them."""
    generator = torch.Generator().manual_seed(0)
    size = (batch_size, shape.channels, shape.height, shape.width)
    numbers = torch.randn(size, generator=generator).abs() + 0.1
    return numbers.to(dtype).contiguous(memory_format=LAYOUTS[layout])


def measure(
    shape: Shape, options: argparse.Namespace, cache: Cache | None, deadline: float
) -> tuple[list[Copy], list[Time]]:
    """All poolings, in rounds in which each takes its turn, until the ``deadline`` of
    ``time.monotonic()``; on a GPU also a copy of the input, and none finds anything in the
    ``cache``."""
    device, dtype = torch.device(options.device), DTYPES[options.dtype]
    input = images(shape, options.batch_size, options.layout, dtype).to(device).requires_grad_()
    parameter = torch.full((*input.shape[:2], 1, 1), 0.5, device=device).requires_grad_()
    all_of_them = contenders(parameter)
    window = (shape.kernel_size, shape.stride, shape.padding)
    grad = torch.randn(options.batch_size, shape.channels, *shape.output_size).to(device, dtype)
    grad = grad.contiguous(memory_format=LAYOUTS[options.layout])

    def forward(name: str) -> Tensor:
        function, theta = all_of_them[name]
        return pool_windows(function, input, theta, *window)

    def backward(name: str, output: Tensor) -> object:
        wanted = (input,) if name in FIXED else (input, parameter)
        return torch.autograd.grad(output, wanted, grad)

    def timed(call: Callable[[], object]) -> tuple[Any, Callable[[], float]]:
        if cache is not None:
            cache.head_start()
        return timer(call)

    peaks = {}
    for name in all_of_them:
        try:
            backward(name, forward(name))  # compiles
            both = allocations_of(lambda name=name: backward(name, forward(name)), device)
        except Exception:
            # One pooling's failure takes no other's times away, but that of what all are
            # compared with.
            if name == MAX_ENT:
                raise
            traceback.print_exc()
        else:
            peaks[name] = both.peak
    seconds = {name: [] for name in peaks}
    shuffle, timer = random.Random(0), timer_of(device)
    copied, copies = torch.empty_like(input), []
    for number in range(options.rounds):
        if number >= MIN_ROUNDS and time.monotonic() > deadline:
            break
        if cache is not None:
            copies.append(timed(lambda: copied.copy_(input.detach()))[1]())
        for name in shuffle.sample(list(seconds), len(seconds)):
            output, forward_seconds = timed(lambda name=name: forward(name))
            _, backward_seconds = timed(lambda name=name, output=output: backward(name, output))
            seconds[name].append((forward_seconds(), backward_seconds()))
    reference = list(map(sum, seconds[MAX_ENT]))
    times = [
        Time(
            str(shape), name,
            1e3 * median(each[0] for each in rounds), 1e3 * median(each[1] for each in rounds),
            median(sum(each) / other for each, other in zip(rounds, reference, strict=True)),
            peaks[name], peaks[MAX_ENT] + grad.numel() * grad.element_size(), len(rounds),
        )
        for name, rounds in seconds.items()
    ]  # fmt: skip
    return [Copy(str(shape), 1e3 * median(copies))] if copies else [], times


def traffic(shape: Shape, options: argparse.Namespace) -> Iterator[Traffic]:
    """Of all that have kernels, on one sample."""
    geometry = pool_geometry(shape.kernel_size, shape.stride, shape.padding)
    for dtype_name, dtype in DTYPES.items():
        input = images(shape, 1, options.layout, dtype)
        parameter = torch.full((*input.shape[:2], 1, 1), 0.5)
        for name, function in functions().items():
            if function.cuda is None:
                continue
            moved = []

            def run(launch, moved=moved):
                counts = run_launch(launch)
                moved.append(counts.sector_bytes + counts.store_bytes)

            output = passes.forward(input, parameter, geometry, run, function)
            forward = sum(moved)
            moved.clear()
            grad = torch.randn_like(output)
            passes.backward(grad, input, parameter, geometry, (True, True), run, function=function)
            least = input.nbytes + output.nbytes, 2 * input.nbytes + output.nbytes
            yield Traffic(str(shape), dtype_name, name, forward / least[0], sum(moved) / least[1])


if __name__ == "__main__":
    sys.exit(main())
