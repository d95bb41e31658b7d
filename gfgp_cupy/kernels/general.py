"""Launches of ``general.cu``: any kernel, stride and padding."""

from __future__ import annotations

from torch import Tensor

from ..geometry import PoolGeometry
from .lanes import BLOCK, is_channels_last
from .launch import Launch, source
from .macros import DTYPE_MACROS, index_type

__all__ = ["forward", "gather", "window_statistics"]


def forward(
    input: Tensor, lam: Tensor, output: Tensor, spread: Tensor | None, geometry: PoolGeometry
) -> Launch:
    """Writes the pooled ``input``, and each window's standard deviation where ``spread`` is given.

    All tensors but λ are dense and in one memory format.
    """
    return Launch(
        name="max_ent_pool2d_general_forward",
        source=SOURCE,
        defines=_defines(input, geometry, WRITE_SPREAD=spread is not None),
        grid=_blocks(output.numel()),
        block=BLOCK,
        args=(
            input, lam, output, output if spread is None else spread,
            output.numel(), *_sizes(input, output, lam),
        ),
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
        source=SOURCE,
        defines=_defines(
            input, geometry,
            WRITE_STATISTICS=statistics is not None, WRITE_GRAD_LAM=grad_lam is not None,
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
    mean_grad: Tensor | None,
    grad_input: Tensor,
    geometry: PoolGeometry,
) -> Launch:
    """Writes the gradient of ``input`` from what :func:`window_statistics` wrote.

    ``mean_grad`` [N, C], of λ's type, is added to every element's gradient.
    """
    return Launch(
        name="max_ent_pool2d_gather",
        source=SOURCE,
        defines=_defines(input, geometry, ADD_MEAN_GRAD=mean_grad is not None),
        grid=_blocks(input.numel()),
        block=BLOCK,
        args=(
            grad_output, input, lam, *statistics,
            lam if mean_grad is None else mean_grad, grad_input,
            input.numel(), *_sizes(input, grad_output, lam),
        ),
    )


SOURCE = source("element.cu", "window.cu", "general.cu")

SWITCHES = ("WRITE_SPREAD", "WRITE_STATISTICS", "WRITE_GRAD_LAM", "ADD_MEAN_GRAD")


def _defines(input: Tensor, geometry: PoolGeometry, **switches: bool) -> tuple[str, ...]:
    values = {
        "index_t": index_type(input.numel()),
        "CHANNELS_LAST": int(is_channels_last(input)),
    }
    for name in ("kernel_size", "stride", "padding"):
        macro = name.removesuffix("_size").upper()
        values[f"{macro}_H"], values[f"{macro}_W"] = getattr(geometry, name)
    values |= {name: int(switches.get(name, False)) for name in SWITCHES}
    return (
        DTYPE_MACROS[input.dtype],
        *(f"{name}={value}" for name, value in values.items()),
    )


def _blocks(threads: int) -> int:
    return -(-threads // BLOCK)


def _sizes(input: Tensor, output: Tensor, lam: Tensor) -> tuple[int, ...]:
    return (*input.shape[1:], *output.shape[2:], *lam.expand(output.shape).stride())
