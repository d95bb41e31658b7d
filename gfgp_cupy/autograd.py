"""The autograd functions around the operators."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.graph import Node

from . import ops
from .geometry import PoolGeometry
from .max_ent import MAX_ENT
from .window_function import WindowFunction

__all__ = [
    "GuidedPoolFunction",
    "MeanFunction",
    "Pending",
    "mean_of_planes",
    "pool",
    "register",
]

# No setup_context: with it, Function.apply binds its arguments by inspecting the signature, which
# takes longer than everything else here. Under torch.func transforms, which would need it, the
# function is computed by PyTorch's own operators (see window_pooling.py).


def register(function: WindowFunction) -> WindowFunction:
    """Registers the operators of a window function, differentiable; once for its name.

    Args:
        function: to pool with, by :func:`gfgp_cupy.window_pooling.pool_windows`.

    Returns:
        ``function``, or the one that has been registered by its name and is the same.

    Raises:
        ValueError: another function has the name.

    Example:
        >>> from gfgp_cupy.poolings.log_sum_exp import LOG_SUM_EXP
        >>> register(LOG_SUM_EXP) is LOG_SUM_EXP
        True
    """
    is_new = (function.name, 2) not in ops.OPERATORS
    known = ops.register(function).function
    if is_new:
        _make_differentiable(function)
    return known


def pool(
    input: Tensor, parameter: Tensor, geometry: PoolGeometry, backend: str, function: WindowFunction
) -> Tensor:
    """4-D or 5-D ``input`` pooled by ``function`` with as many-dimensional ``parameter``, on the
    backend named."""
    # The operator does the same by way of the dispatcher: a compiler sees one node, an eager call
    # would wait.
    if torch.compiler.is_compiling():
        operator = _operators(function, geometry).pool
        return operator(input, parameter, *geometry, backend, function.constant)
    return PoolFunction.apply(input, parameter, geometry, backend, function)


def _operators(function: WindowFunction, geometry: PoolGeometry) -> ops.Operators:
    return ops.OPERATORS[function.name, len(geometry.kernel_size)]


class PoolFunction(torch.autograd.Function):
    """:func:`pool`, differentiable.

    Saves the input and the parameter, nothing else: the backward computes what becomes of a window
    again, which costs arithmetic (plentiful in a memory-bound operator) instead of memory and
    traffic.
    """

    @staticmethod
    def forward(
        ctx,
        input: Tensor,
        parameter: Tensor,
        geometry: PoolGeometry,
        backend: str,
        function: WindowFunction,
    ) -> Tensor:
        ctx.save_for_backward(input, parameter)
        ctx.geometry, ctx.backend, ctx.function = geometry, backend, function
        operator = _operators(function, geometry).pool
        # As torch.library's own autograd functions ask for what lies below; it has no public name.
        with torch._C._AutoDispatchBelowAutograd():
            return operator(input, parameter, *geometry, backend, function.constant)

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor):
        (grad_output,) = grad_outputs
        input, parameter = ctx.saved_tensors
        needed, function = ctx.needs_input_grad[:2], ctx.function
        if _differentiated():
            gradients = _differentiable_backward(
                grad_output, input, parameter, ctx.geometry, needed, function
            )
            return *gradients, None, None, None
        grad_input, grad_parameter = _operators(function, ctx.geometry).backward(
            grad_output, input, parameter, *ctx.geometry, ctx.backend, needed, None,
            function.constant,
        )  # fmt: skip
        return (
            grad_input if needed[0] else None, grad_parameter if needed[1] else None, None, None,
            None,
        )  # fmt: skip


def _make_differentiable(function: WindowFunction) -> None:
    def differentiable(input, parameter, geometry, backend, constant=None):
        return PoolFunction.apply(
            input, parameter, geometry, backend, function.with_constant(constant)
        )

    for axes in (2, 3):
        ops.implementation(f"{function.name}_pool{axes}d", "Autograd")(differentiable)


_make_differentiable(MAX_ENT)


# The fused layer. Composed, the gradient of x is written three times: by the pooling, by the mean
# that feeds the head, and as their sum, which is read from both. Here the pooling's backward
# computes θ's gradient alone, from output-sized tensors, and leaves the rest pending; autograd runs
# the head's backward; and the mean's backward, which autograd must run last, writes both at once.
# Several passes may go through one graph, one inside another or in several threads: what is pending
# belongs to a pass. Where autograd does not say that the mean's backward will run in this one (not
# for the head's gradients alone; distributed autograd cannot say), nothing is left pending.
#
#       x ──> MeanFunction ──> mean ──> head ──> θ ──┐
#                   └────────> x ────────────────> GuidedPoolFunction ──> y


class PendingGradient(NamedTuple):
    """What the pooling's backward leaves for the mean's of the same pass.

    Attributes:
        arguments: the first ones of the operator that will compute the input's gradient.
        function: the window function.
        placeholder: the zeros that autograd got in its stead.
    """

    arguments: tuple
    function: WindowFunction
    placeholder: Tensor


Pending = dict[int, PendingGradient]
"""By the number of the backward pass."""


def mean_of_planes(input: Tensor, dtype: torch.dtype) -> Tensor:
    """The mean of ``input``, [N, C, H, W] or [N, C, D, H, W], as [N, C, 1, 1] of type ``dtype``."""
    if input.dim() == 4:
        return input.mean((2, 3), keepdim=True, dtype=dtype)
    # A copy, for autograd refuses in-place operations on a view that a Function returns.
    return input.mean((2, 3, 4), keepdim=True, dtype=dtype).squeeze(4).clone()


class MeanFunction(torch.autograd.Function):
    """The mean over all axes, [N, C, 1, 1] of type ``dtype``, and the input itself."""

    @staticmethod
    def forward(ctx, input: Tensor, dtype: torch.dtype, pending: Pending) -> tuple[Tensor, Tensor]:
        ctx.pending = pending
        ctx.shape, ctx.dtype = input.shape, input.dtype
        ctx.set_materialize_grads(False)
        # An alias by indexing keeps strides on axes of size 1, by which the memory format is known;
        # view_as does not.
        return mean_of_planes(input, dtype), input[...]

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor | None):
        grad_mean, grad_input = grad_outputs
        pending = ctx.pending.pop(_backward_pass(), None)
        per_element = None
        if grad_mean is not None:
            per_element = grad_mean / math.prod(ctx.shape[2:])
            if len(ctx.shape) == 5:
                per_element = per_element.unsqueeze(4)
        if grad_input is not None and pending is not None:
            arguments, function = pending.arguments, pending.function
            mean_grad = None if per_element is None else per_element.to(arguments[2].dtype)
            operators = ops.OPERATORS[function.name, len(ctx.shape) - 2]
            gradient, _ = operators.backward(
                *arguments, (True, False), mean_grad, function.constant
            )
            # Not the placeholder: the graph of an earlier differentiable pass sent something, too.
            if grad_input is not pending.placeholder:
                gradient = gradient + grad_input
            return gradient, None, None
        if per_element is None:
            return grad_input, None, None
        spread_out = per_element.to(ctx.dtype).expand(ctx.shape)
        return spread_out if grad_input is None else grad_input + spread_out, None, None


class GuidedPoolFunction(torch.autograd.Function):
    """Pooling of :class:`MeanFunction`'s input, with a parameter, [N, C, 1, 1] or
    [N, C, 1, 1, 1], made of its mean."""

    @staticmethod
    def forward(
        ctx,
        input: Tensor,
        parameter: Tensor,
        geometry: PoolGeometry,
        backend: str,
        function: WindowFunction,
        pending: Pending,
    ) -> Tensor:
        output, spread = _operators(function, geometry).pool_with_spread(
            input, parameter, *geometry, backend, function.constant
        )
        ctx.save_for_backward(input, parameter, spread)
        ctx.geometry, ctx.backend, ctx.function = geometry, backend, function
        ctx.pending = pending
        return output

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor):
        (grad_output,) = grad_outputs
        input, parameter, spread = ctx.saved_tensors
        needed, function = ctx.needs_input_grad[:2], ctx.function
        if _differentiated():
            gradients = _differentiable_backward(
                grad_output, input, parameter, ctx.geometry, needed, function
            )
            return *gradients, None, None, None, None
        grad_input = grad_parameter = None
        this_pass = _backward_pass()
        if needed[0] and this_pass is not None and _will_run(input.grad_fn):
            grad_input = input.new_zeros(()).expand(input.shape)
            # Detached, for the graph holds what is pending.
            tensors = _detached(grad_output), input.detach(), parameter.detach()
            ctx.pending[this_pass] = PendingGradient(
                (*tensors, *ctx.geometry, ctx.backend), function, grad_input
            )
        elif needed[0]:
            grad_input, _ = _operators(function, ctx.geometry).backward(
                grad_output, input, parameter, *ctx.geometry, ctx.backend, (True, False), None,
                function.constant,
            )  # fmt: skip
        if needed[1]:
            grad_parameter = _operators(function, ctx.geometry).parameter_backward(
                grad_output, spread, parameter, ctx.backend, function.constant
            )
        return grad_input, grad_parameter, None, None, None, None


def _backward_pass() -> int | None:
    """The number of the backward pass that autograd makes now; ``None``: it makes none, but a
    compiler reads what it would do."""
    if torch.compiler.is_compiling():
        return None
    number = torch._C._current_graph_task_id()  # it has no public name
    return None if number < 0 else number


def _will_run(node: Node | None) -> bool:
    """Whether autograd is sure to run the backward of ``node`` in this pass."""
    assert node is not None  # the mean's
    return torch._C._will_engine_execute_node(node)  # it has no public name


def _detached(grad: Tensor) -> Tensor:
    # Gradients of torch.autograd.grad(…, is_grads_batched=True) cannot be, and have no graph.
    return grad.detach() if grad.requires_grad else grad


def _differentiated() -> bool:
    """Whether a backward pass is being differentiated itself, in reverse or in forward mode."""
    return torch.is_grad_enabled() or forward_ad._current_level >= 0  # it has no public name


def _differentiable_backward(grad_output, input, parameter, geometry, needed, function):
    """Both gradients as differentiable functions of all three tensors."""
    create_graph = torch.is_grad_enabled()
    # Aliases: θ may be made of the input, and that path is not this function's to follow.
    with torch.enable_grad():
        input, parameter = input[...], parameter[...]
        output = function.compose(input, parameter, geometry)
    wanted = [tensor for tensor, need in zip((input, parameter), needed, strict=True) if need]
    gradients = iter(torch.autograd.grad(output, wanted, grad_output, create_graph=create_graph))
    return tuple(next(gradients) if need else None for need in needed)
