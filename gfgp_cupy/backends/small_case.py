"""The small case by which a backend finds out whether it works on a device."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.utils._python_dispatch import _disable_current_modes

from ..geometry import PoolGeometry, pool_geometry
from ..torchscript import outside_trace

__all__ = ["one_line", "raise_if_memory_is_full", "run_small_case", "undisturbed"]

REPLACED = ((builtins, "max", max), (builtins, "min", min), (math, "pow", math.pow))
"""Python's functions that ``torch.export`` replaces while it traces, as they are."""

FULL_MEMORY = ("out of memory", "allocate memory", "not enough memory")
"""What PyTorch's allocator for the CPU, Python and the system say."""


def run_small_case(
    forward: Callable[[Tensor, Tensor, PoolGeometry], Tensor], device: torch.device, size: int
) -> None:
    """Pools one window of ``size`` × ``size`` on ``device``, and raises whatever that raises."""
    with undisturbed():
        # Of a type of their own, for what is found out holds whatever the default type is.
        input = torch.zeros(1, 1, size, size, dtype=torch.float32, device=device)
        lam = torch.zeros(1, 1, 1, 1, dtype=torch.float32, device=device)
        forward(input, lam, pool_geometry(size))


@contextmanager
def undisturbed() -> Iterator[None]:
    """Outside all modes, transforms and traces: the first call of a process may be a traced one.

    Under a fake mode or inside ``torch.func.grad`` a new tensor would be one without memory, and
    Numba compiles calls of Python's own functions.
    """
    with (
        # First, while it can be seen whether this thread exports.
        _python_as_it_is(),
        _disable_current_modes(),
        temporarily_clear_interpreter_stack(),
        torch._C.DisableTorchFunction(),
        outside_trace(),
    ):
        yield


@contextmanager
def _python_as_it_is() -> Iterator[None]:
    now = [(module, name, getattr(module, name)) for module, name, _ in REPLACED]
    if all(was is function for (*_, was), (*_, function) in zip(now, REPLACED, strict=True)):
        yield
        return
    # They are the whole process's. Another thread's export may have ended before the block does:
    # what it has replaced must not come back for good.
    exports = _this_thread_traces()
    for module, name, function in REPLACED:
        setattr(module, name, function)
    try:
        yield
    finally:
        if exports:
            for module, name, function in now:
                setattr(module, name, function)


def _this_thread_traces() -> bool:
    return torch._C._len_torch_dispatch_stack() > 0


def raise_if_memory_is_full(error: Exception, device: torch.device) -> None:
    """Raises ``torch.OutOfMemoryError`` where ``error`` says so: memory is full now, which is no
    reason to do without a backend from then on."""
    text = str(error).lower()
    if isinstance(error, MemoryError) or any(words in text for words in FULL_MEMORY):
        raise torch.OutOfMemoryError(
            f"the memory of {device} is too full to try a backend: free some and call again "
            f"({one_line(error)})"
        ) from error


def one_line(error: Exception) -> str:
    """The type and the message of ``error``, which may have many lines, in one that can be read."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message[:300]}"
