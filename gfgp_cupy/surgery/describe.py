"""Poolings and their windows in a few letters."""

from __future__ import annotations

from torch import nn

from ..geometry import PoolGeometry

__all__ = ["describe", "pair"]


def describe(name: str, window: PoolGeometry | nn.Module) -> str:
    """``name`` with kernel size, stride and padding, if any: ``MaxPool2d(3/2/1)``."""
    sizes = [pair(getattr(window, key)) for key in ("kernel_size", "stride", "padding")]
    if sizes[-1] == (0, 0):
        sizes.pop()
    text = "/".join(str(h) if h == w else f"{h}x{w}" for h, w in sizes)
    ceil_mode = ", ceil_mode" if getattr(window, "ceil_mode", False) else ""
    return f"{name}({text}{ceil_mode})"


def pair(value: int | str | tuple[int, ...]) -> tuple[int | str, int | str]:
    # A convolution's padding may be a word.
    return (value, value) if isinstance(value, (int, str)) else (value[0], value[-1])
