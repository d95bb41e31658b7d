"""Launch of ``lam_gradient.cu``: λ's gradient from the spread that the forward pass saved."""

from __future__ import annotations

from torch import Tensor

from .lanes import BLOCK, Lanes, aligned_elements, is_channels_last, largest_power_of_two
from .launch import Launch, source
from .macros import DTYPE_MACROS, index_type

__all__ = ["lam_gradient", "lam_parts"]


def lam_parts(grad_output: Tensor, spread: Tensor, lam: Tensor) -> Tensor:
    """An empty [N, chunks, C, 1, 1] for :func:`lam_gradient`, to be summed over dimension 1."""
    return _lanes(grad_output, spread).parts(grad_output, lam.dtype)


def lam_gradient(grad_output: Tensor, spread: Tensor, grad_lam: Tensor) -> Launch:
    """Writes Σ grad_output · spread² of each plane, in parts; for λ constant over planes.

    ``grad_output`` and ``spread``, [N, C, oH, oW], are dense and in one memory format.
    """
    lanes = _lanes(grad_output, spread)
    samples, channels, out_h, out_w = grad_output.shape
    return Launch(
        name="max_ent_pool2d_lam_gradient",
        source=source("element.cu", "lanes.cu", "lam_gradient.cu"),
        defines=(
            DTYPE_MACROS[spread.dtype], f"index_t={index_type(spread.numel())}", *lanes.defines
        ),
        grid=lanes.grid,
        block=BLOCK,
        args=(
            grad_output, spread, grad_lam,
            channels if lanes.channels_last else samples * channels, out_h * out_w,
        ),
        shared_bytes=lanes.reduction_elements * grad_lam.element_size(),
    )


def _lanes(grad_output: Tensor, spread: Tensor) -> Lanes:
    channels_last = is_channels_last(spread)
    row = spread.shape[1] if channels_last else spread.shape[2] * spread.shape[3]
    vector = largest_power_of_two(aligned_elements(spread, grad_output), dividing=row)
    return Lanes.of(spread, channels_last, vector)
