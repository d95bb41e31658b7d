"""Launches of ``disjoint.cu``: windows that tile the plane, each in the registers of one thread.

The functions are those of a :class:`.family.Family`.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from .family import BackwardTensors, ForwardTensors
from .formula import Parts
from .lanes import Lanes, aligned_elements, inverse, largest_power_of_two
from .launch import Launch
from .macros import Problem, switches
from .planes import MOST_THREADS, Planes

__all__ = ["backward", "chunks", "forward", "serves"]

MAX_ENT = ("max_ent.cu", "spread.cu", "softmax.cu", "tiling_softmax.cu")
ADAPTER = ("spread.cu", "held_window.cu", "tiling_function.cu")
CONTIGUOUS = Parts(
    ("element.cu", "divide.cu", "planes.cu", "plane_sums.cu", "taps.cu"), MAX_ENT, ADAPTER,
    ("disjoint.cu", "disjoint_contiguous.cu"),
)  # fmt: skip
CHANNELS_LAST = Parts(
    ("element.cu", "divide.cu", "lanes.cu", "taps.cu"), MAX_ENT, ADAPTER,
    ("disjoint.cu", "disjoint_channels_last.cu"),
)  # fmt: skip

MAX_TAPS = 16
"""Elements of a window, which one thread holds in registers."""


def serves(problem: Problem) -> bool:
    """Whether the windows tile the planes exactly and fit into registers."""
    geometry = problem.geometry
    (kernel_h, kernel_w), (height, width) = geometry.kernel_size, problem.shape[2:]
    return (
        geometry.stride == geometry.kernel_size
        and geometry.padding == (0, 0)
        and 1 < kernel_h * kernel_w <= MAX_TAPS
        and height % kernel_h == 0
        and width % kernel_w == 0
    )


def forward(problem: Problem, tensors: ForwardTensors) -> list[Launch]:
    aligned = aligned_elements(tensors.input, tensors.output, tensors.spread)
    return [_launch("disjoint_forward", problem, aligned, tensors)]


def chunks(problem: Problem, input: Tensor, grad_output: Tensor) -> int | None:
    if problem.lam_varies_in_plane:
        return None
    return _deal(problem, aligned_elements(input, grad_output), ("WRITE_GRAD_LAM",)).chunks


def backward(problem: Problem, tensors: BackwardTensors) -> list[Launch]:
    aligned = aligned_elements(tensors.input, tensors.grad_output)
    return [_launch("disjoint_backward", problem, aligned, tensors)]


class Dealt(NamedTuple):
    """What a launch has beside its name and tensors: worked out once."""

    source: str
    defines: tuple[str, ...]
    grid: int
    threads: int
    sizes: tuple[int, ...]
    shared_bytes: int
    chunks: int


def _launch(
    name: str, problem: Problem, aligned: int, tensors: ForwardTensors | BackwardTensors
) -> Launch:
    dealt = _deal(problem, aligned, tensors.switches)
    return Launch(
        name=problem.kernel(name),
        source=dealt.source,
        defines=dealt.defines,
        grid=dealt.grid,
        block=dealt.threads,
        args=(*tensors, *dealt.sizes),
        shared_bytes=dealt.shared_bytes,
    )


@functools.lru_cache(maxsize=4096)
def _deal(problem: Problem, aligned: int, on: tuple[str, ...]) -> Dealt:
    sums = _sums(problem, on)
    deal, defines, sizes = (
        _lanes(problem, aligned) if problem.channels_last else _planes(problem, aligned, sums)
    )
    return Dealt(
        source=(CHANNELS_LAST if problem.channels_last else CONTIGUOUS).source(problem.function),
        defines=(*problem.defines, *problem.window_defines, *switches(*on), *defines),
        grid=deal.grid,
        threads=deal.threads,
        sizes=sizes,
        shared_bytes=deal.shared_elements(sums) * problem.acc_size,
        chunks=deal.chunks,
    )


# How planes are dealt to threads, the macros, and the sizes that the kernels are told. Accesses are
# as wide as addresses (`aligned` elements), the row of windows (or the channels) and a thread's
# registers allow.


def _lanes(problem: Problem, aligned: int) -> tuple[Lanes, tuple[str, ...], tuple[int, ...]]:
    # Each channel has λ, its gradient's sum and two more gradients of its own.
    channels, (_, _, out_h, out_w) = problem.shape[1], problem.output_shape
    vector = _vector(problem, aligned, 80 // (_taps(problem) + 4), channels)
    lanes = Lanes.of(problem.output_shape, vector, problem.dtype.itemsize)
    sizes = (channels, out_h * out_w, *lanes.sizes, out_w, inverse(out_w), *problem.sizes[5:])
    return lanes, lanes.defines, sizes


def _planes(
    problem: Problem, aligned: int, sums: bool
) -> tuple[Planes, tuple[str, ...], tuple[int, ...]]:
    (kernel_h, kernel_w), out_w = problem.geometry.kernel_size, problem.output_shape[3]
    vector = _vector(problem, aligned, 32 // _taps(problem), out_w)
    pack = largest_power_of_two(aligned, dividing=vector * kernel_w)
    # No more windows than one access a row needs: neighbouring threads' accesses then adjoin.
    vector = pack // math.gcd(pack, kernel_w)
    window_bytes = _taps(problem) * problem.dtype.itemsize
    shape, steps = problem.output_shape, problem.sizes[5:]
    if kernel_h == 1 and out_w > vector * MOST_THREADS:
        shape, steps = _in_short_rows(problem, vector) or (shape, steps)
    planes = Planes.of(shape, vector, window_bytes, sums)
    return planes, (*planes.defines, f"PACK={pack}"), (*planes.sizes(shape[1]), *steps)


def _in_short_rows(
    problem: Problem, vector: int
) -> tuple[tuple[int, int, int, int], tuple[int, ...]] | None:
    """The output's shape, and the steps through λ, as if each group were a row of its own: blocks
    take whole rows, and lines have few and long ones. Windows of one row lie in memory so.

    None where λ varies in planes of several rows, whose steps would not be of one size.
    """
    samples, channels, out_h, out_w = problem.output_shape
    *outer, _, step_w = problem.sizes[5:]
    if problem.lam_varies_in_plane and out_h > 1:
        return None
    return (samples, channels, out_h * out_w // vector, vector), (*outer, vector * step_w, step_w)


def _vector(problem: Problem, aligned: int, most: int, row: int) -> int:
    """Windows that a thread takes at once, of a row (or of channels); ``most`` in 4-byte types."""
    most = most // 4 if problem.dtype is torch.float64 else most
    return largest_power_of_two(min(aligned, most), dividing=row)


def _taps(problem: Problem) -> int:
    return math.prod(problem.geometry.kernel_size)


def _sums(problem: Problem, on: tuple[str, ...]) -> bool:
    """Whether λ's gradient is added up, not written for each window."""
    return "WRITE_GRAD_LAM" in on and not problem.lam_varies_in_plane
