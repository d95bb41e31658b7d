"""Launch of ``lam_gradient.cu``: λ's gradient from the spread that the forward pass saved."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from .lanes import BLOCK, Lanes, aligned_elements, largest_power_of_two
from .launch import Launch, source
from .macros import DTYPE_MACROS, has_channels_side_by_side, index_type

__all__ = ["chunks", "lam_gradient"]

SOURCE = source("element.cu", "divide.cu", "lanes.cu", "lam_gradient.cu")


def chunks(grad_output: Tensor, spread: Tensor) -> int:
    """Into how many parts :func:`lam_gradient` sums up a plane."""
    return _deal(*_key(grad_output, spread))[0].chunks


def lam_gradient(grad_output: Tensor, spread: Tensor, grad_lam: Tensor) -> Launch:
    """Writes Σ grad_output · spread² of each plane, in parts [N, chunks, C].

    ``grad_output`` and ``spread``, [N, C, oH, oW], are dense and in one memory format; ``spread``
    is as :mod:`gfgp_cupy.spread` keeps it.
    """
    lanes, defines, sizes = _deal(*_key(grad_output, spread))
    return Launch(
        name="max_ent_pool2d_lam_gradient",
        source=SOURCE,
        defines=defines,
        grid=lanes.grid,
        block=BLOCK,
        args=(grad_output, spread, grad_lam, *sizes),
        shared_bytes=lanes.reduction_elements * grad_lam.element_size(),
    )


def _key(grad_output: Tensor, spread: Tensor) -> tuple:
    channels_last = has_channels_side_by_side(spread)
    # grad_output has the input's type; the spread of a half type is kept in one of its own.
    return spread.shape, grad_output.dtype, channels_last, aligned_elements(spread, grad_output)


@functools.lru_cache(maxsize=4096)
def _deal(
    shape: torch.Size, dtype: torch.dtype, channels_last: bool, aligned: int
) -> tuple[Lanes, tuple[str, ...], tuple[int, ...]]:
    samples, channels, out_h, out_w = shape
    row = channels if channels_last else out_h * out_w
    vector = largest_power_of_two(aligned, dividing=row)
    lanes = Lanes.of((samples, channels, out_h, out_w), channels_last, vector, dtype.itemsize)
    defines = (
        DTYPE_MACROS[dtype],
        f"index_t={index_type(shape.numel())}",
        f"CHANNELS_LAST={int(channels_last)}",
        *lanes.defines,
    )
    if channels_last:
        return lanes, defines, (channels, out_h * out_w, *lanes.sizes)
    return lanes, defines, (samples * channels, out_h * out_w)
