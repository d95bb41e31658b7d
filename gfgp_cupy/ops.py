"""The operators registered with PyTorch, and their shape-only ("fake") versions.

Each hands its work to the backend that it is told to use, so that a backward pass runs on the
backend of its forward whatever thread autograd calls it from. They expect arguments that
:func:`gfgp_cupy.functional.max_ent_pool2d` has checked.

A schema knows no :class:`PoolGeometry`: it has the fields, in their order. Who calls an operator
writes ``*geometry``; the functions below are given the geometry.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .backends import backend_module
from .geometry import PoolGeometry
from .memory_format import layout_of
from .spread import spread_dtype

__all__ = [
    "geometry_of",
    "implementation",
    "max_ent_pool2d",
    "max_ent_pool2d_backward",
    "max_ent_pool2d_lam_backward",
    "max_ent_pool2d_with_spread",
]

_GEOMETRY = "SymInt[2] kernel_size, SymInt[2] stride, SymInt[2] padding, bool ceil_mode"

_library = torch.library.Library("gfgp_cupy", "DEF")
_library.define(f"max_ent_pool2d(Tensor input, Tensor lam, {_GEOMETRY}, str backend) -> Tensor")
_library.define(
    f"max_ent_pool2d_with_spread(Tensor input, Tensor lam, {_GEOMETRY}, str backend) "
    "-> (Tensor, Tensor)"
)
_library.define(
    f"max_ent_pool2d_backward(Tensor grad_output, Tensor input, Tensor lam, {_GEOMETRY}, "
    "str backend, bool[2] output_mask, Tensor? mean_grad=None) -> (Tensor, Tensor)"
)
_library.define(
    "max_ent_pool2d_lam_backward(Tensor grad_output, Tensor spread, Tensor lam, str backend) "
    "-> Tensor"
)


def implementation(
    name: str, dispatch_key: str = "CompositeExplicitAutograd"
) -> Callable[[Callable], Callable]:
    """Decorates what operator ``name`` does: on any device, or for another dispatch key."""
    return _registered(torch.library.impl(_library, name, dispatch_key))


def geometry_of(
    kernel_size: Sequence[int], stride: Sequence[int], padding: Sequence[int], ceil_mode: bool
) -> PoolGeometry:
    """The geometry of which an operator was given the fields, where PyTorch made lists of pairs."""
    (kernel_h, kernel_w), (stride_h, stride_w), (pad_h, pad_w) = kernel_size, stride, padding
    return PoolGeometry((kernel_h, kernel_w), (stride_h, stride_w), (pad_h, pad_w), ceil_mode)


def _fake(name: str) -> Callable[[Callable], Callable]:
    return _registered(torch.library.register_fake(f"gfgp_cupy::{name}", lib=_library))


def _registered(register: Callable[[Callable], object]) -> Callable[[Callable], Callable]:
    """Decorates a function to be registered, with its ``geometry`` made of the schema's fields."""

    def decorate(function: Callable) -> Callable:
        parameters = list(inspect.signature(function).parameters)
        if "geometry" not in parameters:
            register(function)
            return function
        start = parameters.index("geometry")
        stop = start + len(PoolGeometry._fields)

        @functools.wraps(function)
        def of_fields(*args):
            return function(*args[:start], geometry_of(*args[start:stop]), *args[stop:])

        register(of_fields)
        return function

    return decorate


@implementation("max_ent_pool2d")
def _forward(input: Tensor, lam: Tensor, geometry: PoolGeometry, backend: str) -> Tensor:
    return backend_module(backend).forward(input, lam, geometry)


@implementation("max_ent_pool2d_with_spread")
def _forward_with_spread(
    input: Tensor, lam: Tensor, geometry: PoolGeometry, backend: str
) -> tuple[Tensor, Tensor]:
    return backend_module(backend).forward_with_spread(input, lam, geometry)


@implementation("max_ent_pool2d_backward")
def _backward(
    grad_output: Tensor,
    input: Tensor,
    lam: Tensor,
    geometry: PoolGeometry,
    backend: str,
    output_mask: Sequence[bool],
    mean_grad: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    grad_input, grad_lam = backend_module(backend).backward(
        grad_output, input, lam, geometry, tuple(output_mask), mean_grad
    )
    # A schema has no optional results: a gradient nobody asked for is an empty tensor.
    return (
        input.new_empty(0) if grad_input is None else grad_input,
        lam.new_empty(0) if grad_lam is None else grad_lam,
    )


@implementation("max_ent_pool2d_lam_backward")
def _lam_backward(grad_output: Tensor, spread: Tensor, lam: Tensor, backend: str) -> Tensor:
    return backend_module(backend).lam_backward(grad_output, spread, lam)


@_fake("max_ent_pool2d")
def _forward_fake(input: Tensor, lam: Tensor, geometry: PoolGeometry, backend: str) -> Tensor:
    shape = (*input.shape[:2], *geometry.output_size(*input.shape[2:]))
    return torch.empty(
        shape, dtype=input.dtype, device=input.device, memory_format=layout_of(input)
    )


@_fake("max_ent_pool2d_with_spread")
def _forward_with_spread_fake(
    input: Tensor, lam: Tensor, geometry: PoolGeometry, backend: str
) -> tuple[Tensor, Tensor]:
    output = _forward_fake(input, lam, geometry, backend)
    return output, torch.empty_like(output, dtype=spread_dtype(output.dtype))


@_fake("max_ent_pool2d_backward")
def _backward_fake(
    grad_output, input, lam, geometry, backend, output_mask, mean_grad=None
) -> tuple[Tensor, Tensor]:
    grad_input = torch.empty(
        input.shape, dtype=input.dtype, device=input.device, memory_format=layout_of(input)
    )
    return (
        grad_input if output_mask[0] else input.new_empty(0),
        torch.empty_like(lam, memory_format=torch.contiguous_format)
        if output_mask[1]
        else lam.new_empty(0),
    )


@_fake("max_ent_pool2d_lam_backward")
def _lam_backward_fake(grad_output: Tensor, spread: Tensor, lam: Tensor, backend: str) -> Tensor:
    return torch.empty_like(lam, memory_format=torch.contiguous_format)


max_ent_pool2d = torch.ops.gfgp_cupy.max_ent_pool2d.default
max_ent_pool2d_with_spread = torch.ops.gfgp_cupy.max_ent_pool2d_with_spread.default
max_ent_pool2d_backward = torch.ops.gfgp_cupy.max_ent_pool2d_backward.default
max_ent_pool2d_lam_backward = torch.ops.gfgp_cupy.max_ent_pool2d_lam_backward.default
