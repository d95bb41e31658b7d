"""Launches of ``disjoint.cu``: windows that tile the plane, each in the registers of one thread."""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry import PoolGeometry
from ..memory_format import layout_of
from .launch import Launch, source
from .plan import DTYPE_MACROS, index_type

__all__ = ["aligned_elements", "backward", "forward", "lam_parts", "lam_varies_in_plane",
           "largest_power_of_two", "serves"]

BLOCK = 256
MAX_TAPS = 16
MAX_ELEMENTS = {torch.contiguous_format: 32, torch.channels_last: 64}
"""Input elements that one thread holds in registers at once; of float64, a quarter."""

WINDOWS_PER_THREAD = 4
"""In channels_last: enough to spread the reading of λ, few enough to fill the GPU."""


def serves(input: Tensor, geometry: PoolGeometry) -> bool:
    """Whether the windows tile the planes of ``input`` exactly and fit into registers."""
    kernel_h, kernel_w = geometry.kernel_size
    height, width = input.shape[2:]
    return (
        geometry.stride == geometry.kernel_size
        and geometry.padding == (0, 0)
        and 1 < kernel_h * kernel_w <= MAX_TAPS
        and height % kernel_h == 0
        and width % kernel_w == 0
    )


def forward(
    input: Tensor, lam: Tensor, output: Tensor, spread: Tensor | None, geometry: PoolGeometry
) -> Launch:
    """Writes the pooled ``input``, and each window's standard deviation where ``spread`` is given.

    All tensors but λ are dense and in one memory format.
    """
    tile = _Tile(input, output, geometry, (input, output, spread))
    return Launch(
        name="max_ent_pool2d_disjoint_forward",
        source=SOURCE,
        defines=_defines(tile, lam, output, spread=spread is not None),
        grid=tile.grid,
        block=BLOCK,
        args=(input, lam, output, output if spread is None else spread, *tile.sizes,
              *lam.expand(output.shape).stride()),
    )


def lam_parts(grad_output: Tensor, input: Tensor, lam: Tensor, geometry: PoolGeometry) -> Tensor:
    """An empty tensor for :func:`backward`'s ``grad_lam``, whose sum over dimension 1 is λ's
    gradient for each window of [N, C, oH, oW], or each plane of [N, C, 1, 1]."""
    if lam_varies_in_plane(lam):
        return torch.empty_like(grad_output, dtype=lam.dtype).unsqueeze(1)
    samples, channels = input.shape[:2]
    chunks = _Tile(input, grad_output, geometry, (input, grad_output)).chunks
    return lam.new_empty(samples, chunks, channels, 1, 1)


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
    tensors = (input, grad_output, grad_input)
    tile = _Tile(input, grad_output, geometry, tensors)
    return Launch(
        name="max_ent_pool2d_disjoint_backward",
        source=SOURCE,
        defines=_defines(
            tile, lam, grad_output, grad_input=grad_input is not None,
            grad_lam=grad_lam is not None, mean_grad=mean_grad is not None,
        ),
        grid=tile.grid,
        block=BLOCK,
        args=(
            grad_output, input, lam, lam if mean_grad is None else mean_grad,
            input if grad_input is None else grad_input,
            lam if grad_lam is None else grad_lam,
            *tile.sizes, *lam.expand(grad_output.shape).stride(),
        ),
        shared_bytes=0 if grad_lam is None else tile.reduction_elements * lam.element_size(),
    )


SOURCE = source("element.cu", "softmax.cu", "disjoint.cu")


class _Tile:
    """How the windows are dealt out to blocks and threads."""

    def __init__(self, input, output, geometry, tensors) -> None:
        samples, channels, out_h, out_w = output.shape
        self.kernel_h, self.kernel_w = geometry.kernel_size
        self.index_type = index_type(input.numel())
        self.dtype = input.dtype
        layout = layout_of(input)
        self.channels_last = layout is torch.channels_last
        widest = aligned_elements(tensors)
        taps = self.kernel_h * self.kernel_w
        most = MAX_ELEMENTS[layout] // (4 if input.dtype is torch.float64 else 1)
        row = channels if self.channels_last else out_w
        self.vector = largest_power_of_two(min(widest, most // taps), dividing=row)
        if self.channels_last:
            self.pack = self.vector
            vectors = channels // self.vector
            self.lanes = largest_power_of_two(min(vectors, 32))
            per_block = BLOCK // self.lanes * WINDOWS_PER_THREAD
            self.chunks = -(-out_h * out_w // per_block)
            self.grid = samples * -(-vectors // self.lanes) * self.chunks
            self.sizes = (channels, out_h, out_w)
            self.reduction_elements = BLOCK * self.vector
        else:
            self.pack = largest_power_of_two(widest, dividing=self.vector * self.kernel_w)
            groups = out_h * out_w // self.vector
            # About four rounds a lane, on whole warps where the plane is large enough for one.
            self.lanes = largest_power_of_two(min(max(groups // 4, min(groups, 32)), BLOCK))
            self.chunks = 1
            planes = samples * channels
            self.grid = -(-planes * self.lanes // BLOCK)
            self.sizes = (planes, channels, out_h, out_w)
            self.reduction_elements = BLOCK // 32


def _defines(
    tile: _Tile, lam: Tensor, output: Tensor, *, spread=False, grad_input=False, grad_lam=False,
    mean_grad=False,
) -> tuple[str, ...]:
    values = {
        "index_t": tile.index_type,
        "CHANNELS_LAST": int(tile.channels_last),
        "KERNEL_H": tile.kernel_h,
        "KERNEL_W": tile.kernel_w,
        "PACK": tile.pack,
        "VECTOR": tile.vector,
        "LANES": tile.lanes,
        "WINDOWS_PER_THREAD": WINDOWS_PER_THREAD,
        "LAM_PER_WINDOW": int(lam_varies_in_plane(lam)),
        "WRITE_SPREAD": int(spread),
        "WRITE_GRAD_INPUT": int(grad_input),
        "WRITE_GRAD_LAM": int(grad_lam),
        "ADD_MEAN_GRAD": int(mean_grad),
    }
    return DTYPE_MACROS[tile.dtype], *(f"{name}={value}" for name, value in values.items())


def lam_varies_in_plane(lam: Tensor) -> bool:
    return lam.shape[2] > 1 or lam.shape[3] > 1


def aligned_elements(tensors: tuple[Tensor | None, ...]) -> int:
    """How many elements one access of at most 16 bytes may hold, by the tensors' addresses."""
    size = tensors[0].element_size()
    addresses = 16
    for tensor in tensors:
        if tensor is not None:
            addresses |= tensor.data_ptr()
    return (addresses & -addresses) // size


def largest_power_of_two(limit: int, dividing: int = 0) -> int:
    """The largest power of two up to ``limit`` that divides ``dividing``."""
    power = 1
    while 2 * power <= limit and dividing % (2 * power) == 0:
        power *= 2
    return power
