"""Runs one pass of the operator, for NVIDIA's Nsight Compute to profile its kernels.

    ncu --set full --profile-from-start off \
        python benchmarks/profile_target.py --shape 64x112x112:3/2/1 --direction backward
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    # From a clone, without installing: import from the repository, not from this script's folder.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch

from benchmarks.contenders import OP, make_contenders
from benchmarks.operators import DTYPES
from benchmarks.rounds import SPACING, Inputs, backward
from benchmarks.shapes import Shape
from training.argument_types import positive_int


def main(argv: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(argv)
    profile(
        options.shape,
        options.direction,
        dtype=DTYPES[options.dtype],
        layout=options.layout,
        batch_size=options.batch_size,
    )
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split(",")[0] + ".", allow_abbrev=False)
    parser.add_argument("--shape", type=Shape.parse, required=True, help="as of operators.py")
    parser.add_argument("--direction", choices=("forward", "backward"), required=True)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--layout", choices=("contiguous", "channels_last"), default="contiguous")
    parser.add_argument("--batch-size", type=positive_int, default=64, metavar="N")
    return parser


def profile(shape: Shape, direction: str, dtype: torch.dtype, layout: str, batch_size: int) -> None:
    """Runs both passes once, which compiles them, and then the one in the profiler's sight."""
    device = torch.device("cuda")
    (contender,) = (
        one
        for one in make_contenders(shape, batch_size=batch_size, dtype=dtype, device=device)
        if one.name == OP
    )
    elements = batch_size * shape.input_elements
    memory = torch.randn(elements + SPACING, dtype=dtype, device=device)
    inputs = Inputs.of(memory, shape, batch_size=batch_size, layout=layout)
    input, grad_output = inputs.input(), inputs.grad_outputs.next()
    output = contender.forward(input)
    backward(contender, output, input, grad_output)
    output = contender.forward(input)
    torch.cuda.synchronize()
    torch.cuda.profiler.start()
    if direction == "forward":
        contender.forward(input)
    else:
        backward(contender, output, input, grad_output)
    torch.cuda.synchronize()
    torch.cuda.profiler.stop()


if __name__ == "__main__":
    sys.exit(main())
