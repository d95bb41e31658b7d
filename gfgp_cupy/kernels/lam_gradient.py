"""Launch of ``lam_gradient.cu``: λ's gradient from the spread that the forward pass saved."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..window_function import WindowFunction
from .formula import formula_defines, kernel_name
from .lanes import BLOCK, Lanes, aligned_elements, largest_power_of_two
from .launch import Launch, source
from .macros import DTYPE_MACROS, has_channels_side_by_side, index_type
from .planes import team_size

__all__ = ["chunks", "lam_gradient", "pieces"]

CHANNELS_LAST = source("element.cu", "divide.cu", "lanes.cu", "spread.cu", "lam_gradient.cu")
CONTIGUOUS = source("element.cu", "plane_sums.cu", "spread.cu", "lam_gradient.cu")

WIDEST = 8
"""Elements of an access, at most."""

SMALL_PLANE = 1024
"""Windows of a plane that shares a block with others."""

MOST_WINDOWS = 2 * SMALL_PLANE
"""Of a block that keeps what it found of each, but where one access reaches over more planes."""


ENOUGH_BLOCKS = 512
"""With fewer, contiguous planes are cut into pieces, of at least so many windows:"""

LEAST_PIECE = 8192


def pieces(spread: Tensor) -> int:
    """As how many planes each plane is to be handed to :func:`lam_gradient`, of which a block takes
    whole ones if they are contiguous. A divisor of their windows that keeps accesses as wide."""
    if has_channels_side_by_side(spread):
        return 1
    return _pieces(math.prod(spread.shape[:2]), math.prod(spread.shape[2:]))


@functools.lru_cache(maxsize=4096)
def _pieces(planes: int, windows: int) -> int:
    most = max(min(-(-ENOUGH_BLOCKS // planes), windows // LEAST_PIECE), 1)
    accesses = windows // math.gcd(windows, WIDEST)
    return max(number for number in range(1, most + 1) if accesses % number == 0)


def chunks(grad_output: Tensor, spread: Tensor) -> int:
    """Into how many parts :func:`lam_gradient` sums up a plane."""
    return _deal(*_key(grad_output, spread)).chunks


def lam_gradient(
    grad_output: Tensor, spread: Tensor, grad_lam: Tensor, function: WindowFunction
) -> Launch:
    """Writes Σ grad_output · ∂y/∂θ of each plane, in parts [N, chunks, C].

    ``grad_output`` and ``spread``, [N, C, oH, oW], are dense and in one memory format; ``spread``
    holds ∂y/∂θ as :mod:`gfgp_cupy.spread` keeps it for ``function``.
    """
    dealt = _deal(*_key(grad_output, spread))
    return Launch(
        name=kernel_name(function, "lam_gradient"),
        source=dealt.source,
        defines=(*dealt.defines, *formula_defines(function.with_constant(None))),
        grid=dealt.grid,
        block=BLOCK,
        args=(grad_output, spread, grad_lam, *dealt.sizes),
        shared_bytes=dealt.shared_elements * grad_lam.element_size(),
    )


class Dealt(NamedTuple):
    """What a launch has beside its name and tensors: worked out once."""

    source: str
    defines: tuple[str, ...]
    grid: int
    sizes: tuple[int, ...]
    shared_elements: int
    chunks: int


def _key(grad_output: Tensor, spread: Tensor) -> tuple:
    channels_last = has_channels_side_by_side(spread)
    # grad_output has the input's type; the spread of a half type is kept in one of its own.
    return spread.shape, grad_output.dtype, channels_last, aligned_elements(spread, grad_output)


@functools.lru_cache(maxsize=4096)
def _deal(shape: torch.Size, dtype: torch.dtype, channels_last: bool, aligned: int) -> Dealt:
    samples, channels, out_h, out_w = shape
    windows, planes = out_h * out_w, samples * channels
    defines = (
        DTYPE_MACROS[dtype],
        f"index_t={index_type(shape.numel())}",
        f"CHANNELS_LAST={int(channels_last)}",
    )
    if channels_last:
        vector = largest_power_of_two(aligned, dividing=channels)
        lanes = Lanes.of((samples, channels, out_h, out_w), vector, dtype.itemsize)
        return Dealt(
            CHANNELS_LAST, (*defines, *lanes.defines), lanes.grid,
            (channels, windows, *lanes.sizes), lanes.reduction_elements, lanes.chunks,
        )  # fmt: skip
    small = windows <= SMALL_PLANE
    vector = largest_power_of_two(aligned, dividing=planes * windows if small else windows)
    share = 1
    if small:
        # Blocks begin where an access may.
        least = vector // math.gcd(vector, windows)
        share = max(MOST_WINDOWS // (least * windows), 1) * least
    small_defines = (f"SMALL={int(small)}", f"TEAM={team_size(BLOCK, share)}")
    return Dealt(
        CONTIGUOUS, (*defines, f"VECTOR={vector}", f"BLOCK={BLOCK}", *small_defines),
        -(-planes // share), (planes, windows, share), share * windows if small else BLOCK // 32, 1,
    )  # fmt: skip
