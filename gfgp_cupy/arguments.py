"""What every pooling checks of its arguments and input, and makes of its parameter."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor

from .geometry import NAMES_OF_AXES, Sizes
from .torchscript import sizes_of

__all__ = [
    "as_parameter",
    "check_first_value",
    "check_input",
    "check_number",
    "check_width",
    "computing_dtype",
]

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


LARGEST = {dtype: torch.finfo(dtype).max for dtype in (torch.float32, torch.float64)}
"""The largest number of each type to compute in."""


class Geometry(Protocol):
    """Kernel, stride and padding of windows on each axis, and how many of them an input has."""

    @property
    def kernel_size(self) -> Sizes: ...
    @property
    def stride(self) -> Sizes: ...
    @property
    def padding(self) -> Sizes | str: ...
    def output_size(self, *sizes: int) -> Sizes: ...


def computing_dtype(input: Tensor) -> torch.dtype:
    """The type to compute in: half types lack the digits for sums and exponentials."""
    return torch.float64 if input.dtype == torch.float64 else torch.float32


def check_width(name: str, value: int) -> None:
    """Checks a number of channels or of hidden features, the argument ``name``.

    Raises:
        TypeError: no int.
        ValueError: below 1.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")


def check_number(name: str, value: object) -> None:
    """Checks that the argument ``name`` is a number.

    Raises:
        TypeError: no number, or a bool, by which another argument may have been meant.
    """
    if not is_number(value):
        raise TypeError(f"{name} must be a number, got {value!r}")


def check_first_value(name: str, value: float, dtype: torch.dtype | None) -> None:
    """Checks what a parameter of ``dtype`` is to start from.

    Raises:
        TypeError: see :func:`check_number`.
        ValueError: it is not finite in that type.
    """
    check_number(name, value)
    dtype = dtype or torch.get_default_dtype()
    if not abs(value) <= torch.finfo(dtype).max:
        raise ValueError(
            f"{name} must be finite in {dtype}, got {value}: for a limit take a large number, such "
            "as 1000"
        )


def is_number(value: object) -> TypeGuard[Real]:
    return isinstance(value, Real) and not isinstance(value, bool)


def check_input(input: Tensor, geometry: Geometry) -> tuple[Tensor, tuple[int, ...]]:
    """``input`` with a batch dimension, [N, C, H, W], and the shape of the output.

    It has as many axes behind N and C as the windows.

    Raises:
        TypeError: no tensor, or not of a floating-point type.
        ValueError: wrong rank, empty but for the batch, or smaller than a window.
    """
    if not isinstance(input, Tensor):
        raise TypeError(f"input must be a torch.Tensor, got {type(input).__name__}")
    _check_dtype("input", input)
    if input.layout is not torch.strided or input.is_nested:
        kind, way = input.layout, "to_dense()"
        if input.is_nested:
            kind, way = "a nested tensor", "to_padded_tensor(0.0), where that is what you mean"
        raise TypeError(f"input must be a dense tensor, got {kind}: use input.{way}")
    axes, dimensions = len(geometry.kernel_size), input.dim()
    if dimensions != axes + 2 and dimensions != axes + 1:
        names = NAMES_OF_AXES[axes]
        raise ValueError(
            f"input must be [N, C, {names}] or [C, {names}], got {input.dim()} dimensions: "
            f"shape {tuple(sizes_of(input))}"
        )
    batched = input if dimensions == axes + 2 else input.unsqueeze(0)
    samples, channels, *sizes = sizes_of(batched)
    if channels == 0 or 0 in sizes:
        raise ValueError(
            f"input may be empty in its batch dimension only, got shape {tuple(sizes_of(input))}"
        )
    windows = geometry.output_size(*sizes)
    for count in windows:
        if count < 1:
            raise ValueError(
                f"the output would be empty ({' x '.join(map(str, windows))}): input of shape "
                f"{tuple(sizes_of(input))} is smaller than kernel_size={geometry.kernel_size} with "
                f"padding={geometry.padding}{_as_channels(geometry, channels)}"
            )
    return batched, (samples, channels, *windows)


def _as_channels(geometry: Geometry, channels: int) -> str:
    """The advice for ``MaxEntPool2d(64, 2)``, where the window was meant to come second."""
    axes = len(geometry.kernel_size)
    if geometry.kernel_size != (channels,) * axes:
        return ""
    kernel = geometry.stride[0] if len(set(geometry.stride)) == 1 else geometry.stride
    if geometry.stride == geometry.kernel_size:
        kernel = "…"
    return (
        f"; if {channels} was meant as the number of channels, the window comes first: "
        f"kernel_size={kernel}, and num_features={channels} where the pooling has that argument"
    )


def as_parameter(name: str, value: Tensor | float, input: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A pooling's parameter as a tensor of :func:`computing_dtype`, with as many dimensions as
    ``shape``.

    Args:
        name: of the argument, for messages.
        value: a number, or a floating-point tensor that broadcasts to ``shape``.
        input: the pooling's input, on whose device a tensor must be.
        shape: of the output of a batch, or of a part of it.

    Raises:
        TypeError, ValueError: ``value`` is none of the above, or beyond the type's range.
    """
    dtype = computing_dtype(input)
    if not isinstance(value, Tensor):
        return input.new_full((1,) * len(shape), _number(name, value, dtype), dtype=dtype)
    _check_dtype(name, value)
    if value.device != input.device:
        raise ValueError(
            f"input and {name} must be on one device, got input on {input.device} and {name} on "
            f"{value.device}: move one, for instance with {name}.to(input.device), or with "
            f"layer.to(input.device) the layer that has {name}"
        )
    if not _broadcasts(sizes_of(value), shape):
        raise ValueError(
            f"{name} of shape {tuple(sizes_of(value))} does not broadcast to {shape}, which it "
            f"must for input of shape {tuple(sizes_of(input))}"
            f"{_advice(name, tuple(sizes_of(value)), shape)}"
        )
    if value.dtype != dtype:
        value = value.to(dtype)
    missing = len(shape) - value.dim()
    return value.reshape((1,) * missing + value.shape) if missing else value


def _number(name: str, value: object, dtype: torch.dtype) -> float:
    if not is_number(value):
        raise TypeError(f"{name} must be a torch.Tensor or a number, got {type(value).__name__}")
    size: Any = abs(value)
    if LARGEST[dtype] < size < math.inf:
        raise ValueError(
            f"{name} must be at most {LARGEST[dtype]:.3g} in magnitude, for it is used in "
            f"{str(dtype).removeprefix('torch.')}, got {value}"
        )
    return float(value)


def _advice(name: str, given: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """How to pass one number a channel, or a sample and channel, if that is what is ``given``; how
    to make a layer that has one a channel, of other channels."""
    for what, leading in (("channel", shape[1:2]), ("sample and channel", shape[:2])):
        if given == leading:
            axes = ", None" * (len(shape) - 2)
            return f": if it is one a {what}, pass {name}[...{axes}]"
    if len(given) == len(shape) and given[0] == 1 and given[1] not in (1, shape[1]):
        return (
            f": if it is a layer's, make that with num_features={shape[1]}, or without "
            f"num_features for one {name} in all"
        )
    return ""


def _broadcasts(shape: tuple[int, ...], full: tuple[int, ...]) -> bool:
    missing = len(full) - len(shape)
    if missing < 0:
        return False
    # A loop: any() of a generator takes twice as long, on every call of a pooling.
    for size, whole in zip(shape, full[missing:], strict=True):
        if size != 1 and size != whole:
            return False
    return True


def _check_dtype(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in DTYPES:
        conversion = "dequantize" if tensor.is_quantized else "float"
        raise TypeError(
            f"{name} must be float16, bfloat16, float32 or float64, got {tensor.dtype}: "
            f"convert it, for instance with {name}.{conversion}()"
        )
