"""Which launch computes what: kernels, macros, grids and arguments from tensors and geometry."""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry import PoolGeometry
from ..memory_format import layout_of
from .launch import Launch, source

__all__ = ["DTYPE_MACROS", "gather", "index_type", "pool_forward", "window_statistics"]

BLOCK = 256

DTYPE_MACROS = {
    torch.float16: "DTYPE_FLOAT16=1",
    torch.bfloat16: "DTYPE_BFLOAT16=1",
    torch.float32: "DTYPE_FLOAT32=1",
    torch.float64: "DTYPE_FLOAT64=1",
}

INT_LIMIT = 2**31 - BLOCK
"""Above so many elements, offsets (of a thread in the last block, too) need 64 bits."""


def pool_forward(input: Tensor, lam: Tensor, output: Tensor, geometry: PoolGeometry) -> Launch:
    """Writes the pooled ``input`` into ``output``; both dense, in one memory format."""
    return Launch(
        name="max_ent_pool2d_forward",
        source=source("element.cu", "window.cu", "forward.cu"),
        defines=_defines(input, geometry),
        grid=_blocks(output.numel()),
        block=BLOCK,
        args=(input, lam, output, output.numel(), *_sizes(input, output, lam)),
    )


def window_statistics(
    grad_output: Tensor,
    input: Tensor,
    lam: Tensor,
    statistics: tuple[Tensor, Tensor] | None,
    grad_lam: Tensor | None,
    geometry: PoolGeometry,
) -> Launch:
    """Writes each window's mean and log-total (``statistics``) and its part of λ's gradient.

    All are output-sized, of λ's type, in the memory format of ``grad_output``. ``None`` for what
    is not needed.
    """
    anything = grad_lam if statistics is None else statistics[0]
    mean, log_total = (anything, anything) if statistics is None else statistics
    return Launch(
        name="max_ent_pool2d_window_statistics",
        source=source("element.cu", "window.cu", "backward.cu"),
        defines=(
            *_defines(input, geometry),
            f"WRITE_STATISTICS={int(statistics is not None)}",
            f"WRITE_GRAD_LAM={int(grad_lam is not None)}",
        ),
        grid=_blocks(grad_output.numel()),
        block=BLOCK,
        args=(
            grad_output, input, lam, mean, log_total,
            anything if grad_lam is None else grad_lam,
            grad_output.numel(), *_sizes(input, grad_output, lam),
        ),
    )


def gather(
    grad_output: Tensor,
    input: Tensor,
    lam: Tensor,
    statistics: tuple[Tensor, Tensor],
    grad_input: Tensor,
    geometry: PoolGeometry,
) -> Launch:
    """Writes the gradient of ``input`` from what :func:`window_statistics` wrote."""
    return Launch(
        name="max_ent_pool2d_gather",
        source=source("element.cu", "window.cu", "backward.cu"),
        defines=(*_defines(input, geometry), "WRITE_STATISTICS=1", "WRITE_GRAD_LAM=1"),
        grid=_blocks(input.numel()),
        block=BLOCK,
        args=(
            grad_output, input, lam, *statistics, grad_input,
            input.numel(), *_sizes(input, grad_output, lam),
        ),
    )


def index_type(elements: int) -> str:
    """The C++ type that holds every offset into a tensor of so many elements."""
    return "int" if elements < INT_LIMIT else "long long"


def _defines(input: Tensor, geometry: PoolGeometry) -> tuple[str, ...]:
    values = {
        "index_t": index_type(input.numel()),
        "CHANNELS_LAST": int(layout_of(input) is torch.channels_last),
    }
    for name in ("kernel_size", "stride", "padding"):
        macro = name.removesuffix("_size").upper()
        values[f"{macro}_H"], values[f"{macro}_W"] = getattr(geometry, name)
    return (
        DTYPE_MACROS[input.dtype],
        *(f"{name}={value}" for name, value in values.items()),
    )


def _blocks(threads: int) -> int:
    return -(-threads // BLOCK)


def _sizes(input: Tensor, output: Tensor, lam: Tensor) -> tuple[int, ...]:
    return (*input.shape[1:], *output.shape[2:], *lam.expand(output.shape).stride())
