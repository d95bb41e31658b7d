"""Launches of ``overlapping.cu``: windows that overlap, or that padding or the edge cuts."""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry import PoolGeometry
from .lanes import aligned_elements, is_channels_last, largest_power_of_two
from .launch import Launch, source
from .macros import DTYPE_MACROS, index_type, lam_varies_in_plane

__all__ = ["backward", "forward", "lam_parts", "serves"]

MAX_TAPS = 25
"""Elements of a window, which one thread holds in registers."""

SHARED_BYTES = 48 * 1024
"""Shared memory of a block that every GPU grants without being asked."""

CHANNEL_BYTES = 64
"""channels_last: what a block reads of one pixel, two sectors of memory."""

ENOUGH_BLOCKS = 2048
"""Planes are cut into strips until there are so many blocks, or a strip is too short."""

MIN_ROWS = 16
"""Rows of windows in a strip, so that few input rows are read twice."""

MIN_COLUMNS = 16
"""channels_last: columns of windows in a strip, so that few input columns are read twice."""


def serves(input: Tensor, geometry: PoolGeometry) -> bool:
    """Whether windows fit into registers and the rows a block works on into shared memory."""
    kernel_h, kernel_w = geometry.kernel_size
    taps = kernel_h * kernel_w
    return 1 < taps <= MAX_TAPS and _March(input, geometry, ()).shared_bytes <= SHARED_BYTES


def forward(
    input: Tensor, lam: Tensor, output: Tensor, spread: Tensor | None, geometry: PoolGeometry
) -> Launch:
    """Writes the pooled ``input``, and each window's standard deviation where ``spread`` is given.

    All tensors but λ are dense and in one memory format.
    """
    march = _March(input, geometry, (input,))
    return Launch(
        name="max_ent_pool2d_overlapping_forward",
        source=SOURCE,
        defines=march.defines(lam, spread=spread is not None),
        grid=march.grid,
        block=march.block,
        args=(input, lam, output, output if spread is None else spread, march.strip_rows,
              *input.shape[1:], *output.shape[2:], *lam.expand(output.shape).stride()),
        shared_bytes=march.lam_bytes + march.ring_bytes,
    )


def lam_parts(grad_output: Tensor, input: Tensor, lam: Tensor, geometry: PoolGeometry) -> Tensor:
    """An empty tensor for :func:`backward`'s ``grad_lam``, whose sum over dimension 1 is λ's
    gradient for each window of [N, C, oH, oW], or each plane of [N, C, 1, 1]."""
    if lam_varies_in_plane(lam):
        return torch.empty_like(grad_output, dtype=lam.dtype).unsqueeze(1)
    strips = _March(input, geometry, (input,)).strips
    return lam.new_empty(input.shape[0], strips, input.shape[1], 1, 1)


def backward(
    grad_output: Tensor,
    input: Tensor,
    lam: Tensor,
    mean_grad: Tensor | None,
    grad_input: Tensor | None,
    grad_lam: Tensor | None,
    geometry: PoolGeometry,
) -> Launch:
    """Writes the gradients that are given a tensor: ``grad_input``, and ``grad_lam`` in parts.

    ``mean_grad`` [N, C], of λ's type, is added to every element's gradient.
    """
    march = _March(input, geometry, (input, grad_input))
    return Launch(
        name="max_ent_pool2d_overlapping_backward",
        source=SOURCE,
        defines=march.defines(
            lam, grad_input=grad_input is not None, grad_lam=grad_lam is not None,
            mean_grad=mean_grad is not None,
        ),
        grid=march.grid,
        block=march.block,
        args=(
            grad_output, input, lam, lam if mean_grad is None else mean_grad,
            input if grad_input is None else grad_input,
            lam if grad_lam is None else grad_lam,
            march.strip_rows, march.strips, *input.shape[1:], *grad_output.shape[2:],
            *lam.expand(grad_output.shape).stride(),
        ),
        shared_bytes=march.shared_bytes,
    )


SOURCE = source("element.cu", "softmax.cu", "overlapping.cu")


class _March:
    """How a plane is cut into strips, and how a block marches down one."""

    def __init__(self, input: Tensor, geometry: PoolGeometry, tensors) -> None:
        self.geometry = geometry
        self.dtype = input.dtype
        self.index_type = index_type(input.numel())
        self.channels_last = is_channels_last(input)
        samples, channels, height, width = input.shape
        (kernel_h, kernel_w), (stride_h, stride_w) = geometry.kernel_size, geometry.stride
        size = input.element_size()
        halo_h, halo_w = (kernel_h - 1) // stride_h, (kernel_w - 1) // stride_w
        all_rows = (height + geometry.padding[0] - 1) // stride_h + 1
        all_columns = (width + geometry.padding[1] - 1) // stride_w + 1
        widest = aligned_elements(input, *tensors)
        if self.channels_last:
            self.channels = largest_power_of_two(CHANNEL_BYTES // size, dividing=channels)
            self.pack = min(widest, self.channels)
            self.block = 256
            # With the halo, whole rounds of the block's threads.
            round_columns = self.block // self.channels
            rounds = -(-MIN_COLUMNS // round_columns)
            self.tile_w = min(max(1, rounds * round_columns - halo_w), all_columns)
            window_columns = self.tile_w + halo_w
            tile_width = window_columns * stride_w + max(kernel_w - stride_w, 0)
            self.step = 1
        else:
            self.channels = 1
            self.pack = largest_power_of_two(widest, dividing=width)
            self.tile_w = all_columns
            window_columns, tile_width = all_columns, width
            self.block = max(64, min(256, largest_power_of_two(all_rows * all_columns)))
            self.step = max(1, min(self.block // all_columns, all_rows))
        strips_across = -(-all_columns // self.tile_w)
        planes = samples * (channels // self.channels) * strips_across
        strips_down = min(
            -(-ENOUGH_BLOCKS // max(planes, 1)), max(1, all_rows // MIN_ROWS)
        )
        self.strip_rows = -(-all_rows // strips_down)
        self.strips = -(-all_rows // self.strip_rows) * strips_across
        self.grid = samples * (channels // self.channels) * self.strips
        compute_size = max(size, 4)
        self.ring_lead = max(kernel_h - stride_h, 0)
        self.ring = 2 * self.step * stride_h + self.ring_lead
        self.lam_bytes = _round_up(self.channels * compute_size)
        self.ring_bytes = _round_up(self.ring * tile_width * self.channels * size)
        statistics = (halo_h + self.step) * window_columns * self.channels
        self.shared_bytes = (
            2 * self.lam_bytes + self.ring_bytes + max(4 * statistics, self.block) * compute_size
        )

    def defines(
        self, lam: Tensor, *, spread=False, grad_input=False, grad_lam=False, mean_grad=False
    ) -> tuple[str, ...]:
        values = {
            "index_t": self.index_type,
            "CHANNELS_LAST": int(self.channels_last),
            "BLOCK": self.block,
            "STEP": self.step,
            "TILE_W": self.tile_w,
            "CHANNELS": self.channels,
            "PACK": self.pack,
            "RING": self.ring,
            "RING_LEAD": self.ring_lead,
            "LAM_BYTES": self.lam_bytes,
            "RING_BYTES": self.ring_bytes,
            "LAM_PER_WINDOW": int(lam_varies_in_plane(lam)),
            "WRITE_SPREAD": int(spread),
            "WRITE_GRAD_INPUT": int(grad_input),
            "WRITE_GRAD_LAM": int(grad_lam),
            "ADD_MEAN_GRAD": int(mean_grad),
        }
        for name in ("kernel_size", "stride", "padding"):
            macro = name.removesuffix("_size").upper()
            values[f"{macro}_H"], values[f"{macro}_W"] = getattr(self.geometry, name)
        return DTYPE_MACROS[self.dtype], *(f"{name}={value}" for name, value in values.items())


def _round_up(count: int, multiple: int = 16) -> int:
    return -(-count // multiple) * multiple
