"""The small case by which a backend finds out whether it works on a device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.utils._python_dispatch import _disable_current_modes

from ..geometry import PoolGeometry, pool_geometry
from ..torchscript import outside_trace

__all__ = ["one_line", "run_small_case"]


def run_small_case(
    forward: Callable[[Tensor, Tensor, PoolGeometry], Tensor], device: torch.device, size: int
) -> None:
    """Pools one window of ``size`` × ``size`` on ``device``, and raises whatever that raises.

    Outside all modes, transforms and traces: under a fake mode or inside ``torch.func.grad`` a new
    tensor would be one without memory, as happens where the first call of a process is a traced
    one.
    """
    with (
        _disable_current_modes(),
        temporarily_clear_interpreter_stack(),
        torch._C.DisableTorchFunction(),
        outside_trace(),
    ):
        input = torch.zeros(1, 1, size, size, device=device)
        lam = torch.zeros(1, 1, 1, 1, device=device)
        forward(input, lam, pool_geometry(size))


def one_line(error: Exception) -> str:
    """The type and the message of ``error``, which may have many lines, in one that can be read."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message[:300]}"
