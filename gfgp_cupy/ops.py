"""The operators registered with PyTorch, and their shape-only ("fake") versions.

Each window function has four for planes, and four for volumes, ``<name>_pool3d`` and so on; a line
is a plane of one row. Each hands its work to the backend that it is told to use, so that a
backward pass runs on the backend of its forward whatever thread autograd calls it from; ``"auto"``,
as exported programs have it, is the one that serves the device. They expect arguments that
:func:`gfgp_cupy.window_pooling.pool_windows` has checked.

A schema knows no :class:`PoolGeometry`: it has the fields, in their order. Who calls an operator
writes ``*geometry``; the functions below are given the geometry.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload

from .backends import backend_module, resolved
from .geometry import PoolGeometry
from .max_ent import MAX_ENT
from .memory_format import layout_of
from .planes_of_volumes import passes_of
from .spread import spread_dtype
from .window_function import WindowFunction

__all__ = [
    "OPERATORS",
    "Operators",
    "geometry_of",
    "implementation",
    "max_ent_pool2d",
    "max_ent_pool2d_backward",
    "max_ent_pool2d_lam_backward",
    "max_ent_pool2d_with_spread",
    "register",
    "serving",
]

_GEOMETRY = "SymInt[{0}] kernel_size, SymInt[{0}] stride, SymInt[{0}] padding, bool ceil_mode"

_library = torch.library.Library("gfgp_cupy", "DEF")


class Operators(NamedTuple):
    """The operators of a window function with parameter θ: ``<name>_pool2d`` and so on.

    Attributes:
        function: whose they are.
        pool: ``<name>_pool2d``: the output.
        pool_with_spread: ``…_with_spread``: the output and what θ's gradient can be made of.
        backward: ``…_backward``: the gradients of the input and of θ.
        parameter_backward: ``…_<parameter>_backward``: θ's gradient, of output-sized tensors alone.
    """

    function: WindowFunction
    pool: OpOverload
    pool_with_spread: OpOverload
    backward: OpOverload
    parameter_backward: OpOverload


OPERATORS: dict[tuple[str, int], Operators] = {}
"""The operators of each window function, by its name and the number of axes."""


def register(function: WindowFunction) -> Operators:
    """Defines the operators of a window function, once for its name; returns those of planes.

    Raises:
        ValueError: another function has the name.
    """
    known = OPERATORS.get((function.name, 2))
    if known is None:
        for axes in (2, 3):
            OPERATORS[function.name, axes] = _define(function, axes)
    elif known.function.composition is not function.composition:
        raise ValueError(
            f"name={function.name!r} is that of another window function: choose another name"
        )
    return OPERATORS[function.name, 2]


def _define(function: WindowFunction, axes: int) -> Operators:
    name, theta = f"{function.name}_pool{axes}d", function.parameter
    tensors, geometry = f"Tensor input, Tensor {theta}", _GEOMETRY.format(axes)
    _library.define(f"{name}({tensors}, {geometry}, str backend, float? constant=None) -> Tensor")
    _library.define(
        f"{name}_with_spread({tensors}, {geometry}, str backend, float? constant=None) "
        "-> (Tensor, Tensor)"
    )
    _library.define(
        f"{name}_backward(Tensor grad_output, {tensors}, {geometry}, str backend, "
        "bool[2] output_mask, Tensor? mean_grad=None, float? constant=None) -> (Tensor, Tensor)"
    )
    _library.define(
        f"{name}_{theta}_backward(Tensor grad_output, Tensor spread, Tensor {theta}, str backend, "
        "float? constant=None) -> Tensor"
    )
    _implement(function, name, axes)
    namespace = torch.ops.gfgp_cupy
    return Operators(
        function,
        getattr(namespace, name).default,
        getattr(namespace, f"{name}_with_spread").default,
        getattr(namespace, f"{name}_backward").default,
        getattr(namespace, f"{name}_{theta}_backward").default,
    )


def implementation(
    name: str, dispatch_key: str = "CompositeExplicitAutograd"
) -> Callable[[Callable], Callable]:
    """Decorates what operator ``name`` does: on any device, or for another dispatch key."""
    return _registered(torch.library.impl(_library, name, dispatch_key))


def serving(function: WindowFunction, backend: str, device: torch.device) -> str:
    """The name of the backend that computes ``function`` on ``device`` where an operator is told to
    use ``backend``.

    Raises:
        RuntimeError: that one cannot serve the device.
    """
    name = resolved(backend, device)
    return name if function.is_served_by(name) else "torch"


def geometry_of(
    kernel_size: Sequence[int], stride: Sequence[int], padding: Sequence[int], ceil_mode: bool
) -> PoolGeometry:
    """The geometry of which an operator was given the fields, where PyTorch made lists."""
    return PoolGeometry(tuple(kernel_size), tuple(stride), tuple(padding), ceil_mode)


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


def _implement(function: WindowFunction, name: str, axes: int) -> None:
    """What the operators of ``function`` do, and what comes of them without data."""

    def module_for(backend, device):
        return backend_module(serving(function, backend, device))

    def passes_on(backend, device):
        return passes_of(module_for(backend, device), axes)

    @implementation(name)
    def forward(input, theta, geometry, backend, constant=None):
        return passes_on(backend, input.device).forward(
            input, theta, geometry, function=function.with_constant(constant)
        )

    @implementation(f"{name}_with_spread")
    def forward_with_spread(input, theta, geometry, backend, constant=None):
        return passes_on(backend, input.device).forward_with_spread(
            input, theta, geometry, function=function.with_constant(constant)
        )

    @implementation(f"{name}_backward")
    def backward(
        grad_output, input, theta, geometry, backend, output_mask, mean_grad=None, constant=None
    ):
        # A training step that make_fx has captured calls it with gradients on, and the torch
        # backend adds up in place.
        with torch.no_grad():
            grad_input, grad_theta = passes_on(backend, input.device).backward(
                grad_output, input, theta, geometry, tuple(output_mask), mean_grad,
                function=function.with_constant(constant),
            )  # fmt: skip
        # A schema has no optional results: a gradient nobody asked for is an empty tensor.
        return (
            input.new_empty(0) if grad_input is None else grad_input,
            theta.new_empty(0) if grad_theta is None else grad_theta,
        )

    @implementation(f"{name}_{function.parameter}_backward")
    def parameter_backward(grad_output, spread, theta, backend, constant=None):
        return module_for(backend, grad_output.device).lam_backward(
            grad_output, spread, theta, function.with_constant(constant)
        )

    @_fake(name)
    def forward_fake(input, theta, geometry, backend, constant=None):
        return _output_like(input, geometry)

    @_fake(f"{name}_with_spread")
    def forward_with_spread_fake(input, theta, geometry, backend, constant=None):
        output = _output_like(input, geometry)
        kept = spread_dtype(output.dtype, function.spread)
        return output, torch.empty_like(output, dtype=kept)

    @_fake(f"{name}_backward")
    def backward_fake(
        grad_output, input, theta, geometry, backend, output_mask, mean_grad=None, constant=None
    ):
        grad_input = torch.empty(
            input.shape, dtype=input.dtype, device=input.device, memory_format=layout_of(input)
        )
        return (
            grad_input if output_mask[0] else input.new_empty(0),
            torch.empty_like(theta, memory_format=torch.contiguous_format)
            if output_mask[1]
            else theta.new_empty(0),
        )

    @_fake(f"{name}_{function.parameter}_backward")
    def parameter_backward_fake(grad_output, spread, theta, backend, constant=None):
        return torch.empty_like(theta, memory_format=torch.contiguous_format)


def _output_like(input: Tensor, geometry: PoolGeometry) -> Tensor:
    shape = (*input.shape[:2], *geometry.output_size(*input.shape[2:]))
    return torch.empty(
        shape, dtype=input.dtype, device=input.device, memory_format=layout_of(input)
    )


_, max_ent_pool2d, max_ent_pool2d_with_spread, max_ent_pool2d_backward, \
    max_ent_pool2d_lam_backward = register(MAX_ENT)  # fmt: skip
