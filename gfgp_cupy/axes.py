"""Poolings of lines and of volumes, made of those of planes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

from .geometry import NAMES_OF_AXES

__all__ = ["documentation", "for_lines_and_volumes"]

Pooling = TypeVar("Pooling", bound=Callable[..., Any])


def for_lines_and_volumes(pooling: Pooling) -> tuple[Pooling, Pooling]:
    """``…1d`` and ``…3d`` of a function ``…2d`` that takes ``axes``.

    They pool [N, C, L] and [N, C, D, H, W], without N too, by windows of one and of three axes.
    Layers' classes say so themselves: ``class SoftPool3d(SoftPool2d, axes=3): ...``.

    Example:
        >>> from gfgp_cupy.poolings import soft_pool2d
        >>> soft_pool1d, soft_pool3d = for_lines_and_volumes(soft_pool2d)
        >>> soft_pool3d(torch.ones(1, 4, 5, 8, 8), kernel_size=(1, 2, 2)).shape
        torch.Size([1, 4, 5, 4, 4])
    """
    return cast(tuple[Pooling, Pooling], (_function(pooling, 1), _function(pooling, 3)))


def _function(pooling: Callable[..., Any], axes: int) -> Callable[..., Any]:
    @functools.wraps(pooling)
    def pooled(*args: Any, **kwargs: Any) -> Any:
        return pooling(*args, **kwargs, axes=axes)

    signature = inspect.signature(pooling)
    kept = [each for name, each in signature.parameters.items() if name != "axes"]
    pooled.__signature__ = signature.replace(parameters=kept)  # pyright: ignore
    name = pooling.__name__.replace("2d", f"{axes}d")
    pooled.__name__ = pooled.__qualname__ = name
    pooled.__doc__ = documentation(pooling, name, axes)
    return pooled


def documentation(pooling: Any, name: str, axes: int) -> str:
    """The docstring of a function or a class ``name`` that is ``pooling`` with so many axes."""
    of, input = NAMES_OF_AXES[axes], f"torch.ones(2, 4{', 8' * axes})"
    parameters = list(inspect.signature(pooling).parameters)
    window, length, told = "", 1, ""
    if "kernel_size" in parameters:
        window, length = "kernel_size=2", 4
        told = f"``kernel_size``, ``stride`` and ``padding`` are an int or have {axes} of them."
    elif "output_size" in parameters:
        window, length = "output_size=2", 2
        told = f"``output_size`` is an int or ``None``, or has {axes} of them."
    if "head" in parameters:
        told += " ``head`` maps means [N, C, 1, 1], as there."
    if isinstance(pooling, type):
        first = "4" if parameters[0] == "num_features" and "learnable" not in parameters else ""
        kind, call = "class", f"{name}({', '.join(filter(None, (first, window)))})({input})"
    else:
        theta = {"kernel_size": "", "head": "torch.sigmoid, "}.get(parameters[1], "1.0, ")
        kind, call = "func", f"{name}({input}, {theta}{window})"
    size = f", {length}" * axes
    return (
        f":{kind}:`~{pooling.__module__}.{pooling.__name__}` for [N, C, {of}] or [C, {of}].\n\n"
        + (f"    {told}\n\n" if told else "")
        + f"    Example:\n        >>> {call}.shape\n        torch.Size([2, 4{size}])\n"
    )
