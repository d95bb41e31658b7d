"""Backend ``numba``: functions compiled for this machine's processor at run time, for CPU tensors.

It has the functions of :class:`..contract.Backend`. :mod:`.tiles` pools 2×2 windows that tile the
plane, :mod:`.windows` all others; :mod:`.plan` says which, and how a call is divided.

Contiguous and channels_last tensors are used where they lie. float16 and bfloat16 are converted to
float32, and the results back. The work is shared among ``torch.get_num_threads()`` threads; the
results are the same bits whatever their number.
"""

from __future__ import annotations

import functools
import importlib.util

import numpy as np
import torch
from torch import Tensor

from ...geometry import PoolGeometry
from ...memory_format import dense, layout_of
from ...spread import pack_spread
from ..torch import lam_backward
from .plan import Plan, plan
from .threads import run_over

__all__ = ["backward", "forward", "forward_with_spread", "lam_backward", "unavailable"]

SMALLEST_PART = 32_000
"""Elements of windows for which it pays to wake a thread up."""


@functools.cache
def unavailable(device: torch.device) -> str | None:
    if device.type != "cpu":
        return "it serves CPU tensors only"
    if importlib.util.find_spec("numba") is None:
        return "Numba is not installed: pip install numba (or 'gfgp-cupy[cpu]')"
    try:
        from . import windows  # noqa: F401
    except Exception as error:
        # Numba refuses a NumPy that it does not know; LLVM's library may not load.
        return f"Numba cannot be imported: {type(error).__name__}: {error}"
    return None


def forward(input: Tensor, lam: Tensor, geometry: PoolGeometry) -> Tensor:
    return _forward(input, lam, geometry, with_spread=False)[0]


def forward_with_spread(
    input: Tensor, lam: Tensor, geometry: PoolGeometry
) -> tuple[Tensor, Tensor]:
    return _forward(input, lam, geometry, with_spread=True)


def backward(
    grad_output: Tensor, input: Tensor, lam: Tensor, geometry: PoolGeometry,
    needed: tuple[bool, bool], mean_grad: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    layout = layout_of(input)
    x, grad = (
        tensor.to(lam.dtype).contiguous(memory_format=layout) for tensor in (input, grad_output)
    )
    mean_grad = lam.new_zeros(1, 1, 1, 1) if mean_grad is None else mean_grad
    # λ's gradient comes in parts: of each window, or of each row where λ does not vary along it.
    parts = (*grad.shape[:3], grad.shape[3] if lam.shape[3] > 1 else 1)
    grad_input = _empty(x.shape if needed[0] else NOTHING, lam.dtype, layout)
    grad_lam = _empty(parts if needed[1] else NOTHING, lam.dtype, layout).zero_()
    _run(
        "backward",
        plan(x, lam, geometry, layout),
        (
            _memory(grad, layout),
            _memory(x, layout),
            _of_every_plane(lam, x, layout),
            _of_every_plane(mean_grad, x, layout),
            _memory(grad_input, layout),
            _memory(grad_lam, layout),
        ),
    )
    return (
        grad_input.to(input.dtype) if needed[0] else None,
        grad_lam.sum_to_size(lam.shape).contiguous() if needed[1] else None,
    )


NOTHING = (0, 0, 0, 0)


def _forward(
    input: Tensor, lam: Tensor, geometry: PoolGeometry, with_spread: bool
) -> tuple[Tensor, Tensor]:
    layout = layout_of(input)
    x = input.to(lam.dtype).contiguous(memory_format=layout)
    shape = (*x.shape[:2], *geometry.output_size(*x.shape[2:]))
    output = _empty(shape, lam.dtype, layout)
    spread = _empty(shape if with_spread else NOTHING, lam.dtype, layout)
    _run(
        "forward",
        plan(x, lam, geometry, layout),
        (
            _memory(x, layout),
            _of_every_plane(lam, x, layout),
            _memory(output, layout),
            _memory(spread, layout),
        ),
    )
    return output.to(input.dtype), dense(pack_spread(spread, input.dtype), layout)


def _run(direction: str, plan: Plan, tensors: tuple[np.ndarray, ...]) -> None:
    """Calls the compiled functions for all rows of the output."""
    from . import tiles, windows

    def run_tiles(start: int, stop: int) -> None:
        getattr(tiles, direction)(*tensors, plan.sizes, start, stop)

    def run_windows(start: int, stop: int) -> None:
        scratch = np.zeros(plan.rows.size, tensors[0].dtype)
        getattr(windows, direction)(
            *tensors, plan.sizes, plan.rows, plan.columns, scratch, start, stop
        )

    run_over(
        plan.output_rows,
        -(-SMALLEST_PART // plan.row_elements),
        run_tiles if plan.tiled else run_windows,
    )


def _empty(shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format) -> Tensor:
    return torch.empty(shape, dtype=dtype, memory_format=layout)


def _of_every_plane(tensor: Tensor, input: Tensor, layout: torch.memory_format) -> np.ndarray:
    """:func:`_memory` of a tensor repeated for all samples and channels of ``input``."""
    planes = tensor.expand(*input.shape[:2], *tensor.shape[2:])
    return _memory(planes.contiguous(memory_format=layout), layout)


def _memory(tensor: Tensor, layout: torch.memory_format) -> np.ndarray:
    """The elements of a dense [N, C, H, W] tensor, in the order in which they lie in memory."""
    if layout is torch.channels_last:
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.reshape(-1).numpy()
