"""The operators registered with PyTorch, and their shape-only ("fake") versions.

Each hands its work to the backend that it is told to use, so that a backward pass runs on the
backend of its forward whatever thread autograd calls it from. They expect arguments that
:func:`gfgp_cupy.functional.max_ent_pool2d` has checked.
"""

from __future__ import annotations

import torch

from .backends import backend_module
from .geometry import PoolGeometry
from .memory_format import layout_of
from .spread import spread_dtype

__all__ = [
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


def implementation(name: str, dispatch_key: str = "CompositeExplicitAutograd"):
    """Decorates what operator ``name`` does: on any device, or for another dispatch key."""
    return torch.library.impl(_library, name, dispatch_key)


def _fake(name: str):
    return torch.library.register_fake(f"gfgp_cupy::{name}", lib=_library)


@implementation("max_ent_pool2d")
def _forward(input, lam, kernel_size, stride, padding, ceil_mode, backend):
    geometry = PoolGeometry(tuple(kernel_size), tuple(stride), tuple(padding), ceil_mode)
    return backend_module(backend).forward(input, lam, geometry)


@implementation("max_ent_pool2d_with_spread")
def _forward_with_spread(input, lam, kernel_size, stride, padding, ceil_mode, backend):
    geometry = PoolGeometry(tuple(kernel_size), tuple(stride), tuple(padding), ceil_mode)
    return backend_module(backend).forward_with_spread(input, lam, geometry)


@implementation("max_ent_pool2d_backward")
def _backward(
    grad_output,
    input,
    lam,
    kernel_size,
    stride,
    padding,
    ceil_mode,
    backend,
    output_mask,
    mean_grad=None,
):
    geometry = PoolGeometry(tuple(kernel_size), tuple(stride), tuple(padding), ceil_mode)
    grad_input, grad_lam = backend_module(backend).backward(
        grad_output, input, lam, geometry, tuple(output_mask), mean_grad
    )
    # A schema has no optional results: a gradient nobody asked for is an empty tensor.
    return (
        input.new_empty(0) if grad_input is None else grad_input,
        lam.new_empty(0) if grad_lam is None else grad_lam,
    )


@implementation("max_ent_pool2d_lam_backward")
def _lam_backward(grad_output, spread, lam, backend):
    return backend_module(backend).lam_backward(grad_output, spread, lam)


@_fake("max_ent_pool2d")
def _forward_fake(input, lam, kernel_size, stride, padding, ceil_mode, backend):
    geometry = PoolGeometry(tuple(kernel_size), tuple(stride), tuple(padding), ceil_mode)
    shape = (*input.shape[:2], *geometry.output_size(*input.shape[2:]))
    return torch.empty(
        shape, dtype=input.dtype, device=input.device, memory_format=layout_of(input)
    )


@_fake("max_ent_pool2d_with_spread")
def _forward_with_spread_fake(*args):
    output = _forward_fake(*args)
    return output, torch.empty_like(output, dtype=spread_dtype(output.dtype))


@_fake("max_ent_pool2d_backward")
def _backward_fake(
    grad_output,
    input,
    lam,
    kernel_size,
    stride,
    padding,
    ceil_mode,
    backend,
    output_mask,
    mean_grad=None,
):
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
def _lam_backward_fake(grad_output, spread, lam, backend):
    return torch.empty_like(lam, memory_format=torch.contiguous_format)


max_ent_pool2d = torch.ops.gfgp_cupy.max_ent_pool2d.default
max_ent_pool2d_with_spread = torch.ops.gfgp_cupy.max_ent_pool2d_with_spread.default
max_ent_pool2d_backward = torch.ops.gfgp_cupy.max_ent_pool2d_backward.default
max_ent_pool2d_lam_backward = torch.ops.gfgp_cupy.max_ent_pool2d_lam_backward.default
