"""What TorchScript asks for: sizes as numbers inside ``torch.jit.trace``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["held_to_sizes", "is_tracing", "outside_trace", "sizes_of"]

is_tracing = torch.jit.is_tracing  # pyright: ignore[reportPrivateImportUsage] documented
"""Whether ``torch.jit.trace`` records what is called now."""


def sizes_of(tensor: Tensor) -> torch.Size:
    """``tensor.shape``, for checks: inside ``torch.jit.trace`` numbers, too.

    There ``tensor.shape`` is made of tensors, so that what is computed of it holds for other sizes;
    to ask a question of them would warn that its answer is kept.
    """
    if not is_tracing():
        return tensor.shape
    with outside_trace():
        return tensor.shape


def held_to_sizes(input: Tensor, held: Iterable[bool]) -> Tensor:
    """[N, C, H, W] ``input``, or with other axes, of which a trace refuses other sizes than today's
    on the axes behind N and C that are ``held``."""
    sizes = zip(sizes_of(input)[2:], held, strict=True)
    # A trace keeps no questions, but tensors of these sizes cannot be expanded from others.
    return input.expand(-1, -1, *[size if is_held else -1 for size, is_held in sizes])


@contextmanager
def outside_trace() -> Iterator[None]:
    """Nothing that the block does is recorded by ``torch.jit.trace``."""
    state = torch._C._get_tracing_state()  # these two have no public names
    if state is None:
        yield  # inside an operator PyTorch does not let it be set, be it to what it is
        return
    torch._C._set_tracing_state(None)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        torch._C._set_tracing_state(state)  # pyright: ignore[reportAttributeAccessIssue]
