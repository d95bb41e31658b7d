"""Runs every kernel on small tensors, for NVIDIA's compute-sanitizer to watch.

    compute-sanitizer --tool memcheck --kernel-name kns=_pool \
        python benchmarks/sanitizer_target.py

``PYTORCH_NO_CUDA_MEMORY_CACHING=1`` gives each tensor an allocation of its own, so that an access
past its end is seen. Compile the kernels beforehand, without the tool and in several processes:

    python benchmarks/sanitizer_target.py --processes 4
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    # From a clone, without installing: import from the repository, not from this script's folder.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from torch import Tensor

import gfgp_cupy.poolings  # noqa: F401  they register their window functions
from gfgp_cupy.max_ent import MAX_ENT
from gfgp_cupy.ops import OPERATORS
from gfgp_cupy.window_pooling import pool_guided, pool_windows
from training.argument_types import positive_int

LAYOUTS = (torch.contiguous_format, torch.channels_last)
FUNCTIONS = {
    name: of.function
    for (name, axes), of in OPERATORS.items()
    if axes == 2 and of.function.cuda is not None
}
"""The window functions that have kernels, by name."""

TILING, OVERLAPPING = NETWORKS = (2, 2, 0), (3, 2, 1)
"""Kernel, stride and padding of the networks' windows."""

WIDE, CUT, LARGE, GAPS, WHOLE = (4, 4, 0), (3, 3, 1), (7, 1, 3), (2, 3, 0), (16, 16, 0)
"""Others: more than 16 bytes wide, cut by padding, too large for registers, with gaps, a plane."""

LARGER = (10, 3, 5)
"""Which the general kernels alone take."""

EVEN, ODD, STRIPS = (2, 16, 16, 16), (3, 5, 9, 11), (1, 16, 64, 128)
"""N, C, H, W that wide accesses divide, that they do not, and whose planes are cut into strips."""

VOLUMES = (2, 3, 4, 6, 8)
"""N, C, D, H, W."""


@dataclass(frozen=True)
class Case:
    window: tuple[int, int, int]
    dtype: torch.dtype
    layout: torch.memory_format
    sizes: tuple[int, ...] = EVEN
    lam_in_plane: bool = False
    aligned: bool = True
    function: str = MAX_ENT.name


def cases() -> Iterator[Case]:
    """Every kernel in both layouts, in float32 and a half type, and each further path at least
    once: few enough for their programs to be compiled and watched within a minute or two."""
    contiguous, channels_last = LAYOUTS
    # Others than Max-Ent pooling, first, for a limit of time cuts off the last: not in the kernels
    # whose threads share nothing.
    for number, name in enumerate(name for name in FUNCTIONS if name != MAX_ENT.name):
        layout = LAYOUTS[number % 2]
        for window in (*NETWORKS, LARGE, WHOLE):
            yield Case(window, torch.float32, layout, function=name)
        yield Case(LARGE, torch.bfloat16, layout, function=name)
    for window, layout in itertools.product(NETWORKS, LAYOUTS):
        yield Case(window, torch.float32, layout)
        yield Case(window, torch.bfloat16, layout)
        yield Case(window, torch.float16, layout, aligned=False)
        yield Case(window, torch.float32, layout, sizes=STRIPS)
        yield Case(window, torch.float32, layout, lam_in_plane=True)
        yield Case(window, torch.bfloat16, layout, lam_in_plane=True)
    for window in NETWORKS:
        yield Case(window, torch.float64, contiguous, lam_in_plane=True)
    for window in (WIDE, LARGER, GAPS, WHOLE):
        yield Case(window, torch.float32, contiguous)
        yield Case(window, torch.bfloat16, channels_last)
    for window in (*NETWORKS, CUT, LARGE):
        yield Case(window, torch.float32, contiguous, sizes=ODD)
        yield Case(window, torch.bfloat16, channels_last, sizes=ODD)
    for window in NETWORKS:
        yield Case(window, torch.float32, contiguous, sizes=VOLUMES)
        yield Case(window, torch.bfloat16, torch.channels_last_3d, sizes=VOLUMES)


def exercise(case: Case, device: str) -> None:
    """Forward and backward passes of the operator and, where θ allows, of the fused layer."""
    function, input, axes = FUNCTIONS[case.function], input_of(case, device), len(case.sizes) - 2
    output = pool_windows(function, input, 1.0, *case.window, axes=axes)
    ones = (1,) * axes
    shape = output.shape if case.lam_in_plane else (*output.shape[:2], *ones)
    parameter = torch.rand(shape, device=device).requires_grad_()
    pool_windows(function, input, parameter, *case.window, axes=axes).sum().backward()
    if not case.lam_in_plane:
        pool_guided(function, input, torch.sigmoid, *case.window, axes=axes).sum().backward()


def input_of(case: Case, device: str) -> Tensor:
    """Random numbers that require a gradient, one element off an aligned address if need be."""
    samples, channels, *size = case.sizes
    first = 0 if case.aligned else 1
    memory = torch.randn(math.prod(case.sizes) + first, dtype=case.dtype, device=device)[first:]
    if case.layout is torch.contiguous_format:
        input = memory.view(case.sizes)
    else:
        input = memory.view(samples, *size, channels).movedim(-1, 1)
    return input.requires_grad_()


def main(argv: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(argv)
    chosen = [case for case in cases() if options.only in str(case)]
    if options.processes == 1:
        run_part(0, 1, chosen)
    else:
        torch.multiprocessing.spawn(run_part, (options.processes, chosen), nprocs=options.processes)
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "--processes",
        type=positive_int,
        default=1,
        metavar="N",
        help="share the work, for its kernels to be compiled sooner (default: %(default)s)",
    )
    parser.add_argument(
        "--only",
        default="",
        metavar="TEXT",
        help="the cases alone that are printed with this text in them",
    )
    return parser


def run_part(part: int, parts: int, chosen: Sequence[Case]) -> None:
    """Every ``parts``-th of the cases, from number ``part`` on, on the GPU."""
    for case in chosen[part::parts]:
        exercise(case, "cuda")
        print(case, flush=True)
    torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main())
