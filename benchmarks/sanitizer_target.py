"""Runs every kernel on small tensors, for NVIDIA's compute-sanitizer to watch.

    compute-sanitizer --tool memcheck --kernel-name kns=max_ent_pool2d \
        python benchmarks/sanitizer_target.py

``PYTORCH_NO_CUDA_MEMORY_CACHING=1`` gives each tensor an allocation of its own, so that an access
past its end is seen.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    # From a clone, without installing: import from the repository, not from this script's folder.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from torch import Tensor

from gfgp_cupy.functional import guided_max_ent_pool2d, max_ent_pool2d

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
LAYOUTS = (torch.contiguous_format, torch.channels_last)

TILING, OVERLAPPING = (2, 2, 0), (3, 2, 1)
"""Kernel, stride and padding of the networks' windows."""

OTHERS = ((4, 4, 0), (3, 3, 1), (7, 1, 3), (2, 3, 0))
"""Wide, cut by padding, too large for registers, with gaps."""

EVEN, ODD = (2, 16, 16, 16), (3, 5, 9, 11)
"""N, C, H, W that wide accesses divide, and that they do not."""


@dataclass(frozen=True)
class Case:
    window: tuple[int, int, int]
    dtype: torch.dtype
    layout: torch.memory_format
    sizes: tuple[int, int, int, int] = EVEN
    lam_in_plane: bool = False
    aligned: bool = True


def cases() -> Iterator[Case]:
    """Every type and layout with the networks' windows, and fewer of them with the rest."""
    for window, dtype, layout in itertools.product((TILING, OVERLAPPING), DTYPES, LAYOUTS):
        yield Case(window, dtype, layout)
    for dtype, layout in itertools.product(DTYPES[:2], LAYOUTS):
        for window in OTHERS:
            yield Case(window, dtype, layout)
        for window in (TILING, OVERLAPPING, *OTHERS):
            yield Case(window, dtype, layout, sizes=ODD)
        for window in (TILING, OVERLAPPING):
            yield Case(window, dtype, layout, lam_in_plane=True)
            yield Case(window, dtype, layout, aligned=False)


def exercise(case: Case, device: str) -> None:
    """Forward and backward passes of the operator and, where λ allows, of the fused layer."""
    input = input_of(case, device)
    output = max_ent_pool2d(input, 1.0, *case.window)
    lam_shape = output.shape if case.lam_in_plane else (*output.shape[:2], 1, 1)
    lam = torch.rand(lam_shape, device=device).requires_grad_()
    max_ent_pool2d(input, lam, *case.window).sum().backward()
    if not case.lam_in_plane:
        guided_max_ent_pool2d(input, torch.sigmoid, *case.window).sum().backward()


def input_of(case: Case, device: str) -> Tensor:
    """Random numbers that require a gradient, one element off an aligned address if need be."""
    samples, channels, height, width = case.sizes
    first = 0 if case.aligned else 1
    memory = torch.randn(
        samples * channels * height * width + first, dtype=case.dtype, device=device
    )[first:]
    if case.layout is torch.channels_last:
        input = memory.view(samples, height, width, channels).permute(0, 3, 1, 2)
    else:
        input = memory.view(case.sizes)
    return input.requires_grad_()


def main(device: str = "cuda") -> int:
    for case in cases():
        exercise(case, device)
        print(case, flush=True)
    if device == "cuda":
        torch.cuda.synchronize()
    return 0


if __name__ == "__main__":
    sys.exit(main())
