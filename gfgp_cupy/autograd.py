"""The autograd functions around the operators."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import ops, reference
from .geometry import PoolGeometry

__all__ = ["GuidedPool2dFunction", "MeanFunction", "PendingGradient", "pool2d"]

# No setup_context: with it, Function.apply binds its arguments by inspecting the signature, which
# takes longer than everything else here. Under torch.func transforms, which would need it, the
# function is computed by PyTorch's own operators (see functional.py).


def pool2d(input: Tensor, lam: Tensor, geometry: PoolGeometry, backend: str) -> Tensor:
    """Max-Ent pooling of 4-D ``input`` with 4-D ``lam``, on the backend named."""
    # The operator does the same by way of the dispatcher: a compiler sees one node, an eager call
    # would wait.
    if torch.compiler.is_compiling():
        return ops.max_ent_pool2d(input, lam, *geometry, backend)
    return MaxEntPool2dFunction.apply(input, lam, geometry, backend)


class MaxEntPool2dFunction(torch.autograd.Function):
    """:func:`pool2d`, differentiable.

    Saves the input and λ, nothing else: the backward computes the weights again, which costs
    arithmetic (plentiful in a memory-bound operator) instead of memory and traffic.
    """

    @staticmethod
    def forward(ctx, input: Tensor, lam: Tensor, geometry: PoolGeometry, backend: str) -> Tensor:
        ctx.save_for_backward(input, lam)
        ctx.geometry, ctx.backend = geometry, backend
        # As torch.library's own autograd functions ask for what lies below; it has no public name.
        with torch._C._AutoDispatchBelowAutograd():
            return ops.max_ent_pool2d(input, lam, *geometry, backend)

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor):
        (grad_output,) = grad_outputs
        input, lam = ctx.saved_tensors
        needed = ctx.needs_input_grad[:2]
        if _differentiated():
            gradients = _differentiable_backward(grad_output, input, lam, ctx.geometry, needed)
            return *gradients, None, None
        grad_input, grad_lam = ops.max_ent_pool2d_backward(
            grad_output, input, lam, *ctx.geometry, ctx.backend, needed
        )
        return grad_input if needed[0] else None, grad_lam if needed[1] else None, None, None


@ops.implementation("max_ent_pool2d", "Autograd")
def _differentiable(input: Tensor, lam: Tensor, geometry: PoolGeometry, backend: str) -> Tensor:
    return MaxEntPool2dFunction.apply(input, lam, geometry, backend)


# The fused layer. Composed, the gradient of x is written three times: by the pooling, by the mean
# that feeds the head, and as their sum, which is read from both. Here the pooling's backward
# computes λ's gradient alone, from output-sized tensors, and leaves the rest pending; autograd runs
# the head's backward; and the mean's backward, which autograd must run last, writes both at once.
#
#       x ──> MeanFunction ──> mean ──> head ──> λ ──┐
#                   └────────> x ────────────────> GuidedPool2dFunction ──> y


@dataclass
class PendingGradient:
    """What the pooling's backward leaves for the mean's.

    Attributes:
        arguments: of the operator that will compute the input's gradient; ``None``: nothing is
            pending.
        placeholder: the zeros that autograd got in its stead.
    """

    arguments: tuple | None = None
    placeholder: Tensor | None = None


class MeanFunction(torch.autograd.Function):
    """The mean over height and width, [N, C, 1, 1] of type ``dtype``, and the input itself."""

    @staticmethod
    def forward(
        ctx, input: Tensor, dtype: torch.dtype, pending: PendingGradient
    ) -> tuple[Tensor, Tensor]:
        ctx.pending = pending
        ctx.plane, ctx.dtype = input.shape, input.dtype
        ctx.set_materialize_grads(False)
        # An alias by indexing keeps strides on axes of size 1, by which the memory format is known;
        # view_as does not.
        return input.mean((2, 3), keepdim=True, dtype=dtype), input[...]

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor | None):
        grad_mean, grad_input = grad_outputs
        arguments, ctx.pending.arguments = ctx.pending.arguments, None
        per_element = None
        if grad_mean is not None:
            per_element = grad_mean / (ctx.plane[2] * ctx.plane[3])
        if grad_input is not None and arguments is not None:
            lam = arguments[2]
            mean_grad = None if per_element is None else per_element.to(lam.dtype)
            gradient, _ = ops.max_ent_pool2d_backward(*arguments, (True, False), mean_grad)
            # Not the placeholder: the graph of an earlier differentiable pass sent something, too.
            if grad_input is not ctx.pending.placeholder:
                gradient = gradient + grad_input
            return gradient, None, None
        if per_element is None:
            return grad_input, None, None
        spread_out = per_element.to(ctx.dtype).expand(ctx.plane)
        return spread_out if grad_input is None else grad_input + spread_out, None, None


class GuidedPool2dFunction(torch.autograd.Function):
    """Max-Ent pooling of :class:`MeanFunction`'s input, with a λ [N, C, 1, 1] made of its mean."""

    @staticmethod
    def forward(
        ctx,
        input: Tensor,
        lam: Tensor,
        geometry: PoolGeometry,
        backend: str,
        pending: PendingGradient,
    ) -> Tensor:
        output, spread = ops.max_ent_pool2d_with_spread(input, lam, *geometry, backend)
        ctx.save_for_backward(input, lam, spread)
        ctx.geometry, ctx.backend, ctx.pending = geometry, backend, pending
        return output

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor):
        (grad_output,) = grad_outputs
        input, lam, spread = ctx.saved_tensors
        needed = ctx.needs_input_grad[:2]
        # An earlier pass that ended before the mean's backward may have left something.
        ctx.pending.arguments = None
        if _differentiated():
            gradients = _differentiable_backward(grad_output, input, lam, ctx.geometry, needed)
            return *gradients, None, None, None
        grad_input = grad_lam = None
        if needed[0]:
            ctx.pending.arguments = (grad_output, input, lam, *ctx.geometry, ctx.backend)
            grad_input = ctx.pending.placeholder = input.new_zeros(()).expand(input.shape)
        if needed[1]:
            grad_lam = ops.max_ent_pool2d_lam_backward(grad_output, spread, lam, ctx.backend)
        return grad_input, grad_lam, None, None, None


def _differentiated() -> bool:
    """Whether a backward pass is being differentiated itself, in reverse or in forward mode."""
    return torch.is_grad_enabled() or forward_ad._current_level >= 0  # it has no public name


def _differentiable_backward(grad_output, input, lam, geometry, needed):
    """Both gradients as differentiable functions of all three tensors."""
    create_graph = torch.is_grad_enabled()
    # Aliases: λ may be made of the input, and that path is not this function's to follow.
    with torch.enable_grad():
        input, lam = input[...], lam[...]
        output = reference.composition(input, lam, geometry)
    wanted = [tensor for tensor, need in zip((input, lam), needed, strict=True) if need]
    gradients = iter(torch.autograd.grad(output, wanted, grad_output, create_graph=create_graph))
    return tuple(next(gradients) if need else None for need in needed)
