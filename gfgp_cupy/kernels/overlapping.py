"""Launches of ``overlapping.cu``: windows that overlap, or that padding or the edge cuts.

The functions are those of a :class:`.family.Family`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from . import whole_planes
from .family import BackwardTensors, ForwardTensors
from .formula import Parts, numbers_of
from .lanes import aligned_elements, largest_power_of_two
from .launch import Launch
from .macros import Problem, switches

__all__ = ["backward", "chunks", "forward", "serves"]

PARTS = Parts(
    ground=("element.cu", "taps.cu"),
    max_ent=("max_ent.cu", "spread.cu", "softmax.cu"),
    adapter=("spread.cu", "held_window.cu", "overlapping_function.cu"),
    kernels=("overlapping.cu",),
)
LARGE_PARTS = Parts(
    ground=("element.cu", "taps.cu", "large_window.cu"),
    max_ent=("max_ent.cu", "spread.cu", "large_softmax.cu"),
    adapter=("spread.cu", "large_function.cu"),
    kernels=("overlapping.cu",),
)
"""Those of windows of more than ``FEW_TAPS`` elements."""

FEW_TAPS, MAX_TAPS = 25, 81
"""Elements of a window, which one thread holds in registers: of float64 the fewer."""

MAX_SIDE = 32
"""Rows and columns of a window of more than ``FEW_TAPS`` elements, which have a bit each."""

SHARED_BYTES = 48 * 1024
"""Shared memory of a block that every GPU grants without being asked."""

CHANNEL_BYTES, LARGE_CHANNEL_BYTES = 64, 32
"""channels_last: what a block reads of one pixel, two sectors of memory; of large windows one, so
that their many rows and columns fit."""

MIN_BLOCK, MAX_BLOCK = 64, 256
"""Threads of a block; so many as its strip has windows, within these bounds."""

TEAMS_BLOCK = 128
"""Small planes share a block until it has so many threads."""

TEAMS_BYTES = 16 * 1024
"""Shared memory of a block that planes share, so that a multiprocessor holds ten of them."""

MIN_TEAM = 8
"""Threads of a team, whose float32 elements are a sector of memory."""

ENOUGH_BLOCKS = 2048
"""Planes are cut into strips until there are so many blocks, or a strip is too short."""

MIN_ROWS = 16
"""Rows of windows in a strip, so that few input rows are read twice."""

MIN_COLUMNS = 16
"""channels_last: columns of windows in a strip, so that few input columns are read twice."""

LARGE_COLUMNS = (32, 16, 8)
"""channels_last: columns of large windows in a strip with its halo, the most that fit."""


def serves(problem: Problem) -> bool:
    """Whether windows fit into registers and the rows a block works on into shared memory."""
    kernel = problem.geometry.kernel_size
    if _large(problem) and (
        problem.dtype is torch.float64
        or math.prod(kernel) > MAX_TAPS
        or max(kernel) > MAX_SIDE
        or whole_planes.serves(problem)
    ):
        return False
    return math.prod(kernel) > 1 and _march(problem, 1).team_bytes <= SHARED_BYTES


def forward(problem: Problem, tensors: ForwardTensors) -> list[Launch]:
    march, defines = _specialised(problem, aligned_elements(tensors.input), tensors.switches)
    team_bytes = march.lam_bytes + march.ring_bytes
    numbers = (
        march.team_log2, team_bytes, march.ring_rows, march.strip_rows, march.step, march.tile_w,
    )  # fmt: skip
    return [
        march.launch(
            problem.kernel("overlapping_forward"), defines, (*tensors, *numbers), team_bytes
        )
    ]


def chunks(problem: Problem, input: Tensor, grad_output: Tensor) -> int | None:
    if problem.lam_varies_in_plane:
        return None
    return _march(problem, aligned_elements(input)).strips


def backward(problem: Problem, tensors: BackwardTensors) -> list[Launch]:
    march, defines = _specialised(problem, aligned_elements(tensors.input), tensors.switches)
    numbers = (
        march.team_log2, march.team_bytes, march.ring_bytes, march.ring_rows, march.strip_rows,
        march.step, march.tile_w, march.strips,
    )  # fmt: skip
    return [
        march.launch(
            problem.kernel("overlapping_backward"), defines, (*tensors, *numbers), march.team_bytes
        )
    ]


def _large(problem: Problem) -> bool:
    return math.prod(problem.geometry.kernel_size) > FEW_TAPS


@dataclass(frozen=True)
class March:
    """How planes are cut into strips, and how the teams of a block march down one each.

    Attributes:
        source: the kernels' text.
        block, grid: threads of a block, and number of blocks.
        teams: teams of a block.
        channels, pack: the macros of ``overlapping.cu`` by these names.
        team_bytes: a team's shared memory in the backward pass, of which ``ring_bytes`` are for
            input rows and ``lam_bytes`` for what is kept of a channel, once or (λ and the mean's
            gradient) twice.
        ring_rows, strip_rows, step, tile_w: the kernels' arguments by these names.
        strips: strips a plane (channels_last: a group of channels) is cut into.
        sizes: :attr:`Problem.sizes`.
    """

    source: str
    block: int
    grid: int
    teams: int
    channels: int
    pack: int
    team_bytes: int
    lam_bytes: int
    ring_bytes: int
    ring_rows: int
    strip_rows: int
    step: int
    tile_w: int
    strips: int
    sizes: tuple[int, ...]

    @property
    def team_log2(self) -> int:
        """A team's threads are a power of two: this one."""
        return (self.block // self.teams).bit_length() - 1

    def launch(self, name: str, defines: tuple[str, ...], args: tuple, team_bytes: int) -> Launch:
        """The launch whose arguments begin with ``args`` and whose teams have so much memory."""
        return Launch(
            name=name,
            source=self.source,
            defines=defines,
            grid=self.grid,
            block=self.block,
            args=(*args, *self.sizes),
            shared_bytes=self.teams * team_bytes,
        )


@functools.lru_cache(maxsize=4096)
def _march(problem: Problem, aligned: int) -> March:
    group = 1
    if problem.channels_last:
        channel_bytes = LARGE_CHANNEL_BYTES if _large(problem) else CHANNEL_BYTES
        group = largest_power_of_two(
            channel_bytes // problem.dtype.itemsize, dividing=problem.shape[1]
        )
    # With the halo, whole rounds of the block's threads; of large windows, what fits.
    round_columns = MAX_BLOCK // group
    rounds = -(-MIN_COLUMNS // round_columns)
    choices = LARGE_COLUMNS if _large(problem) else (rounds * round_columns,)
    marches = (_march_over(columns, problem, group, aligned) for columns in choices)
    fitting = (march for march in marches if march.team_bytes <= SHARED_BYTES)
    return next(fitting, None) or _march_over(choices[-1], problem, group, aligned)


def _march_over(columns: int, problem: Problem, group: int, aligned: int) -> March:
    """channels_last: over strips of so many columns of windows, the halo included, and ``group``
    channels."""
    samples, channels, height, width = problem.shape
    out_h, out_w = problem.output_shape[2:]
    geometry = problem.geometry
    (kernel_h, kernel_w), (stride_h, stride_w) = geometry.kernel_size, geometry.stride
    size = problem.dtype.itemsize
    halo_h, halo_w = (kernel_h - 1) // stride_h, (kernel_w - 1) // stride_w
    all_rows = (height + geometry.padding[0] - 1) // stride_h + 1
    all_columns = (width + geometry.padding[1] - 1) // stride_w + 1
    if problem.channels_last:
        pack = min(aligned, group)
        tile_w = min(max(1, columns - halo_w), all_columns)
        tile_width = (tile_w + halo_w) * stride_w + max(kernel_w - stride_w, 0)
    else:
        tile_w, tile_width = all_columns, width
        pack = largest_power_of_two(aligned, dividing=width)
    across = -(-all_columns // tile_w)
    groups = samples * (channels // group)
    down = min(-(-ENOUGH_BLOCKS // max(groups * across, 1)), max(1, all_rows // MIN_ROWS))
    strip_rows = -(-all_rows // down)
    strips = -(-all_rows // strip_rows) * across

    # A strip with its halo, of which the backward pass works on all.
    rows = min(strip_rows + halo_h, all_rows)
    row_windows = min(tile_w + halo_w, out_w) * group
    windows = min(rows, out_h) * row_windows
    team = max(MIN_TEAM, min(MAX_BLOCK, _power_of_two_from(windows)))
    step = rows if windows <= team else max(1, min(team // row_windows, rows))
    lam_bytes = _round_up(group * problem.acc_size)
    ring_lead = max(kernel_h - stride_h, 0)
    numbers = numbers_of(problem.function)

    def shared_memory(step: int) -> tuple[int, int, int]:
        ring_rows = min(2 * step * stride_h + ring_lead, height)
        ring_bytes = _round_up(ring_rows * min(tile_width, width) * group * size)
        statistics = (numbers + 1) * (halo_h + step) * row_windows
        summed = max(team, MIN_BLOCK)  # the most threads that a team can have
        work_bytes = _round_up(max(statistics, summed) * problem.acc_size)
        return ring_rows, ring_bytes, 2 * lam_bytes + ring_bytes + work_bytes

    while step > 1 and shared_memory(step)[-1] > SHARED_BYTES:
        step = -(-step // 2)
    ring_rows, ring_bytes, team_bytes = shared_memory(step)
    most = min(TEAMS_BLOCK // team, TEAMS_BYTES // team_bytes)
    teams = largest_power_of_two(most, dividing=groups)
    block = max(MIN_BLOCK, teams * team)
    return March(
        source=(LARGE_PARTS if _large(problem) else PARTS).source(problem.function),
        block=block,
        grid=groups * strips // teams,
        teams=teams,
        channels=group,
        pack=pack,
        team_bytes=team_bytes,
        lam_bytes=lam_bytes,
        ring_bytes=ring_bytes,
        ring_rows=ring_rows,
        strip_rows=strip_rows,
        step=step,
        tile_w=tile_w,
        strips=strips,
        sizes=problem.sizes,
    )


@functools.lru_cache(maxsize=4096)
def _specialised(
    problem: Problem, aligned: int, on: tuple[str, ...]
) -> tuple[March, tuple[str, ...]]:
    """How blocks march, and the macros of the kernel whose blocks do."""
    march = _march(problem, aligned)
    macros = (f"CHANNELS={march.channels}", f"PACK={march.pack}", f"TEAMS={int(march.teams > 1)}")
    return march, (*problem.defines, *problem.window_defines, *macros, *switches(*on))


def _round_up(count: int, multiple: int = 16) -> int:
    return -(-count // multiple) * multiple


def _power_of_two_from(count: int) -> int:
    """The smallest power of two that is not below ``count``."""
    return 1 << (count - 1).bit_length()
