"""Launches of ``disjoint.cu``: windows that tile the plane, each in the registers of one thread."""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry import PoolGeometry
from .lanes import BLOCK, Lanes, aligned_elements, is_channels_last, largest_power_of_two
from .launch import Launch, source
from .macros import DTYPE_MACROS, index_type, lam_varies_in_plane

__all__ = ["backward", "forward", "lam_parts", "serves"]

MAX_TAPS = 16
"""Elements of a window, which one thread holds in registers."""


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
    widest = aligned_elements(input, output, spread)
    lanes = _lanes(input, output, geometry, widest)
    return Launch(
        name="max_ent_pool2d_disjoint_forward",
        source=SOURCE,
        defines=_defines(input, lam, geometry, lanes, widest, WRITE_SPREAD=spread is not None),
        grid=lanes.grid,
        block=BLOCK,
        args=(input, lam, output, output if spread is None else spread,
              *_sizes(output, lanes), *lam.expand(output.shape).stride()),
    )


def lam_parts(grad_output: Tensor, input: Tensor, lam: Tensor, geometry: PoolGeometry) -> Tensor:
    """An empty tensor for :func:`backward`'s ``grad_lam``, whose sum over dimension 1 is λ's
    gradient for each window of [N, C, oH, oW], or each plane of [N, C, 1, 1]."""
    if lam_varies_in_plane(lam):
        return torch.empty_like(grad_output, dtype=lam.dtype).unsqueeze(1)
    widest = aligned_elements(input, grad_output)
    return _lanes(input, grad_output, geometry, widest).parts(grad_output, lam.dtype)


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
    widest = aligned_elements(input, grad_output)
    lanes = _lanes(input, grad_output, geometry, widest)
    return Launch(
        name="max_ent_pool2d_disjoint_backward",
        source=SOURCE,
        defines=_defines(
            input, lam, geometry, lanes, widest,
            WRITE_GRAD_INPUT=grad_input is not None,
            WRITE_GRAD_LAM=grad_lam is not None,
            ADD_MEAN_GRAD=mean_grad is not None,
        ),
        grid=lanes.grid,
        block=BLOCK,
        args=(
            grad_output, input, lam, lam if mean_grad is None else mean_grad,
            input if grad_input is None else grad_input,
            lam if grad_lam is None else grad_lam,
            *_sizes(grad_output, lanes), *lam.expand(grad_output.shape).stride(),
        ),
        shared_bytes=0 if grad_lam is None else lanes.reduction_elements * lam.element_size(),
    )


SOURCE = source("element.cu", "lanes.cu", "softmax.cu", "disjoint.cu")


def _lanes(input: Tensor, output: Tensor, geometry: PoolGeometry, widest: int) -> Lanes:
    """As wide accesses as the row of windows (or the channels) and a thread's registers allow."""
    channels_last = is_channels_last(input)
    most = (64 if channels_last else 32) // (4 if input.dtype is torch.float64 else 1)
    taps = geometry.kernel_size[0] * geometry.kernel_size[1]
    row = output.shape[1] if channels_last else output.shape[3]
    vector = largest_power_of_two(min(widest, most // taps), dividing=row)
    return Lanes.of(output, channels_last, vector)


def _defines(
    input: Tensor, lam: Tensor, geometry: PoolGeometry, lanes: Lanes, widest: int, **switches: bool
) -> tuple[str, ...]:
    kernel_h, kernel_w = geometry.kernel_size
    every = {"WRITE_SPREAD", "WRITE_GRAD_INPUT", "WRITE_GRAD_LAM", "ADD_MEAN_GRAD"}
    return (
        DTYPE_MACROS[input.dtype],
        f"index_t={index_type(input.numel())}",
        *lanes.defines,
        f"KERNEL_H={kernel_h}",
        f"KERNEL_W={kernel_w}",
        f"PACK={largest_power_of_two(widest, dividing=lanes.vector * kernel_w)}",
        f"LAM_PER_WINDOW={int(lam_varies_in_plane(lam))}",
        *(f"{name}={int(switches.get(name, False))}" for name in sorted(every)),
    )


def _sizes(output: Tensor, lanes: Lanes) -> tuple[int, ...]:
    samples, channels, out_h, out_w = output.shape
    return (
        (channels, out_h, out_w) if lanes.channels_last
        else (samples * channels, channels, out_h, out_w)
    )
