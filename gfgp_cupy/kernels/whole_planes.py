"""Launches of ``whole_planes.cu``: one window a plane, shared by threads of a block.

The functions are those of a :class:`.family.Family`.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

from torch import Tensor

from .family import BackwardTensors, ForwardTensors
from .formula import Parts
from .lanes import aligned_elements, largest_power_of_two
from .launch import Launch
from .macros import Problem, switches

__all__ = ["backward", "chunks", "forward", "serves"]

PARTS = Parts(
    ("element.cu", "compensated_sum.cu"), ("max_ent.cu", "spread.cu", "max_ent_function.cu"),
    ("spread.cu",), ("whole_planes.cu",),
)  # fmt: skip

LEAST_BLOCK = 128

USUAL_BYTES = 32
"""That a thread holds, unless its plane is too large for as many threads as there can be."""

MOST_BYTES = 200
"""That a thread holds, if it has registers for that beside those that it computes with."""

REGISTERS, LEAST_HELD = 65536, 4
"""Of a block's threads together, and the bytes of each, of which an element takes at least one."""

SECTOR = 32
"""Bytes that cross memory together: the least that neighbouring threads read."""

WIDE_RUN = 128
"""Bytes of neighbouring channels for a block, where its threads can hold their pixels."""


def serves(problem: Problem) -> bool:
    """Whether the only window of a plane has all of it inside."""
    kernel, _, padding, _ = problem.geometry
    return problem.output_shape[2:] == (1, 1) and all(
        size > 0 and reach - before >= size
        for reach, before, size in zip(kernel, padding, problem.shape[2:], strict=True)
    )


def forward(problem: Problem, tensors: ForwardTensors) -> list[Launch]:
    return [_launch("whole_planes_forward", problem, tensors)]


def chunks(problem: Problem, input: Tensor, grad_output: Tensor) -> int | None:
    return 1


def backward(problem: Problem, tensors: BackwardTensors) -> list[Launch]:
    return [_launch("whole_planes_backward", problem, tensors)]


class Deal(NamedTuple):
    """How planes are dealt to threads: the macros of ``whole_planes.cu``, and the grid."""

    block: int
    members: int
    lanes: int
    vector: int
    items: int
    held: bool
    grid: int

    @property
    def defines(self) -> tuple[str, ...]:
        return (
            f"BLOCK={self.block}", f"MEMBERS={self.members}", f"LANES={self.lanes}",
            f"VECTOR={self.vector}", f"ITEMS={self.items}", f"HELD={int(self.held)}",
        )  # fmt: skip


class Dealt(NamedTuple):
    """What a launch has beside its name and tensors: worked out once."""

    source: str
    defines: tuple[str, ...]
    grid: int
    block: int
    sizes: tuple[int, ...]
    shared_bytes: int


def _launch(name: str, problem: Problem, tensors: ForwardTensors | BackwardTensors) -> Launch:
    dealt = _deal(problem, aligned_elements(tensors.input), tensors.switches)
    return Launch(
        name=problem.kernel(name),
        source=dealt.source,
        defines=dealt.defines,
        grid=dealt.grid,
        block=dealt.block,
        args=(*tensors, *dealt.sizes),
        shared_bytes=dealt.shared_bytes,
    )


@functools.lru_cache(maxsize=4096)
def _deal(problem: Problem, aligned: int, on: tuple[str, ...]) -> Dealt:
    deal = _rows_of_lanes(problem) if problem.channels_last else _teams(problem, aligned)
    samples, channels, height, width = problem.shape
    elements = height * width
    packs = elements if problem.channels_last else elements // deal.vector
    lam_n, lam_c = problem.sizes[5:7]
    return Dealt(
        source=PARTS.source(problem.function),
        defines=(*problem.defines, *switches(*on), *deal.defines),
        grid=deal.grid,
        block=deal.block,
        sizes=(
            samples * channels, channels, packs, elements, _power_of_two_from(elements), lam_n,
            lam_c,
        ),
        shared_bytes=max(deal.block // 32 * deal.lanes * problem.acc_size, 16),
    )  # fmt: skip


def _teams(problem: Problem, aligned: int) -> Deal:
    """Contiguous planes: as many neighbouring threads a plane as hold it comfortably."""
    elements, size = math.prod(problem.shape[2:]), problem.dtype.itemsize
    vector = largest_power_of_two(aligned, dividing=elements)
    packs, pack_bytes = elements // vector, vector * size
    members = _power_of_two_from(-(-packs * pack_bytes // USUAL_BYTES))
    members = min(max(members, SECTOR // pack_bytes, 2), 256 if size == 8 else 512)
    block = max(LEAST_BLOCK, members)
    if members > 32:
        block = members  # one plane: its threads meet at barriers
    items = -(-packs // members)
    planes = math.prod(problem.shape[:2])
    return Deal(
        block, members, 1, vector, items, _can_hold(items, pack_bytes, block, size),
        -(-planes // (block // members)),
    )  # fmt: skip


def _rows_of_lanes(problem: Problem) -> Deal:
    """channels_last planes: the widest run of channels of which a block can hold all pixels."""
    samples, channels, height, width = problem.shape
    pixels, size = height * width, problem.dtype.itemsize
    lanes, least = min(WIDE_RUN // size, 32), SECTOR // size
    usual = USUAL_BYTES // max(size, LEAST_HELD)
    block, items = _rows(pixels, lanes, usual, 256)
    while lanes > least and items > 2 * usual:
        lanes //= 2
        block, items = _rows(pixels, lanes, usual, 256)
    if items > 2 * usual:
        block, items = _rows(pixels, lanes, usual, 512 if size == 8 else 1024)
    return Deal(
        block, block // lanes, lanes, 1, items, _can_hold(items, size, block, size),
        samples * -(-channels // lanes),
    )  # fmt: skip


def _rows(pixels: int, lanes: int, usual: int, most: int) -> tuple[int, int]:
    """Threads of a block, up to so many, and the elements that each of them has."""
    block = min(max(_power_of_two_from(-(-pixels // usual) * lanes), LEAST_BLOCK), most)
    return block, -(-pixels // (block // lanes))


def _can_hold(items: int, pack_bytes: int, block: int, size: int) -> bool:
    """Whether each of a block's threads can hold so many packs, of elements of ``size`` bytes."""
    registers = REGISTERS // block - (96 if size == 8 else 48)
    return items * max(pack_bytes, LEAST_HELD) <= min(LEAST_HELD * registers, MOST_BYTES)


def _power_of_two_from(count: int) -> int:
    """The smallest power of two that is not below ``count``."""
    return 1 << (count - 1).bit_length()
