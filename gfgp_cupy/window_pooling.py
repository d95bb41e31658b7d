"""Pooling with any window function: arguments checked, a backend picked, the fused guided path."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .arguments import as_parameter, check_input
from .autocast import mean_dtype
from .autograd import (
    GuidedPoolFunction,
    MeanFunction,
    Pending,
    mean_of_planes,
    pool,
)  # fmt: skip
from .backends import select_backend
from .bins import Bins, groups, rejoined, taken
from .geometry import Sizes
from .memory_format import in_layout, layout_of
from .padding import ELEMENTS, Windows, place_windows
from .torchscript import is_tracing, sizes_of
from .window_function import WindowFunction

__all__ = ["pool_guided", "pool_windows"]

# As get_proxy_mode of torch.fx asks, which takes five times as long, on every call of a layer; in
# PyTorch 2.6 to 2.14.
_mode, _is_dispatched_to = (
    torch._C._get_dispatch_mode,
    torch._C._dispatch_tls_is_dispatch_key_included,
)
_PROXY = torch._C._TorchDispatchModeKey.PROXY
_FUNCTIONAL = torch._C._TorchDispatchModeKey.FUNCTIONAL
_PRE_DISPATCH = torch._C.DispatchKey.PreDispatch


def pool_windows(
    function: WindowFunction, input: Tensor, parameter: Tensor | float,
    kernel_size: int | Sizes, stride: int | Sizes | None = None,
    padding: int | Sizes | str = 0, ceil_mode: bool = False,
    count_include_pad: bool = False, axes: int = 2,
) -> Tensor:  # fmt: skip
    """Pools each window of ``input`` by ``function``.

    Args:
        function: a registered one, see :func:`gfgp_cupy.autograd.register`.
        input: [N, C, H, W] or [C, H, W]; float16, bfloat16, float32 or float64. The result keeps
            its type and memory format. Half types are computed in float32.
            With other ``axes`` [N, C, L] or [N, C, D, H, W], as below; without N likewise.
        parameter: θ, a floating-point tensor that broadcasts to the output [N, C, oH, oW] (for
            [C, H, W] input to [1, C, oH, oW]), or a number.
        kernel_size, stride, padding, ceil_mode, count_include_pad: the window, as in
            :func:`gfgp_cupy.functional.max_ent_pool2d`.
        axes: that windows have: 1, 2 or 3.

    Returns:
        [N, C, oH, oW] or [C, oH, oW], sized as by ``torch.nn.functional.max_pool2d``, or as
        ``"same"`` has it.

    Raises:
        TypeError, ValueError: as :func:`gfgp_cupy.functional.max_ent_pool2d`.

    Example:
        >>> from gfgp_cupy.poolings.log_sum_exp import LOG_SUM_EXP
        >>> pool_windows(LOG_SUM_EXP, torch.ones(1, 1, 4, 4), 2.0, kernel_size=2)
        tensor([[[[1., 1.],
                  [1., 1.]]]])
    """
    if isinstance(kernel_size, Bins) and not kernel_size.tile(input, axes):
        return _pool_uneven(function, input, parameter, kernel_size.of_axes(axes))
    windows = place_windows(input, kernel_size, stride, padding, ceil_mode, count_include_pad, axes)
    parameter = as_parameter(function.parameter, parameter, input, windows.output_shape)
    output = _pool(function, windows, windows.all_of(parameter), _backend(function, windows.input))
    return windows.result(output, input.dim())


def pool_guided(
    function: WindowFunction, input: Tensor, head: Callable[[Tensor], Tensor],
    kernel_size: int | Sizes, stride: int | Sizes | None = None,
    padding: int | Sizes | str = 0, ceil_mode: bool = False,
    count_include_pad: bool = False, axes: int = 2,
) -> Tensor:  # fmt: skip
    """:func:`pool_windows` with a θ that ``head`` makes of the input's global mean.

    Its backward pass writes the input's gradient once, where the composition writes it three times;
    :func:`gfgp_cupy.functional.guided_max_ent_pool2d` says when it cannot.

    Args:
        head: maps the mean, [N, C, 1, 1] of the input's type (N = 1 for [C, H, W] input), to θ,
            of any shape that broadcasts to [N, C, 1, 1]. Under autocast the mean of a half type
            is float32: what differs between samples may be less than its rounding. So it is for
            any number of ``axes``.

    Raises:
        TypeError, ValueError: as :func:`pool_windows`; θ that varies inside a plane does not
            broadcast.

    Example:
        >>> from gfgp_cupy.poolings.log_sum_exp import LOG_SUM_EXP
        >>> head = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 1), torch.nn.Softplus())
        >>> pool_guided(LOG_SUM_EXP, torch.randn(2, 8, 4, 4), head, kernel_size=2).shape
        torch.Size([2, 8, 2, 2])
    """
    if isinstance(kernel_size, Bins) and not kernel_size.tile(input, axes):
        return _pool_uneven_guided(function, input, head, kernel_size.of_axes(axes))
    windows = place_windows(input, kernel_size, stride, padding, ceil_mode, count_include_pad, axes)
    batched, geometry = windows.input, windows.geometry
    shape = (*windows.output_shape[:2], 1, 1)

    def predicted(mean: Tensor) -> Tensor:
        parameter = as_parameter(function.parameter, head(mean), input, shape)
        return parameter if batched.dim() == 4 else parameter.unsqueeze(4)

    backend = _backend(function, batched)
    if windows.padded is batched and _can_fuse(batched, backend):
        pending: Pending = {}
        mean, batched = MeanFunction.apply(batched, mean_dtype(batched), pending)
        output = GuidedPoolFunction.apply(
            batched, predicted(mean), geometry, backend, function, pending
        )
    else:
        parameter = predicted(mean_of_planes(batched, mean_dtype(batched)))
        output = _pool(function, windows, parameter, backend)
    return windows.result(output, input.dim())


def _pool_uneven_guided(
    function: WindowFunction, input: Tensor, head: Callable[[Tensor], Tensor], bins: Bins
) -> Tensor:
    """:func:`_pool_uneven` with a θ that ``head`` makes of the input's global mean."""
    axes = len(bins.counts)
    batched, (samples, channels, *_) = check_input(input, ELEMENTS[axes])
    if axes == 1:
        batched = batched.unsqueeze(2)
    predicted = head(mean_of_planes(batched, mean_dtype(batched)))
    parameter = as_parameter(function.parameter, predicted, input, (samples, channels, 1, 1))
    return _pool_uneven(function, input, parameter.view(*parameter.shape[:2], *(1,) * axes), bins)


def _pool_uneven(
    function: WindowFunction, input: Tensor, parameter: Tensor | float, bins: Bins
) -> Tensor:
    """Pools windows of which some are longer than others: those of each size together."""
    axes = len(bins.counts)
    batched, (samples, channels, *size) = check_input(input, ELEMENTS[axes])
    shape = (samples, channels, *bins.output_size(*size))
    parameter = as_parameter(function.parameter, parameter, input, shape)
    of_axes = [groups(length, count) for length, count in zip(size, shape[2:], strict=True)]
    batched = bins.of_one_size(batched)
    if axes == 1:
        batched, parameter = batched.unsqueeze(2), parameter.unsqueeze(2)
        of_axes = [groups(1, 1), *of_axes]
    layout = layout_of(batched)

    def pooled(input: Tensor, parameter: Tensor, lengths: Sizes) -> Tensor:
        """The windows of these ``lengths`` on the first axes, and of each on the others."""
        if len(lengths) == len(of_axes):
            input = in_layout(input, layout)
            return pool_windows(function, input, parameter, lengths, axes=len(lengths))
        of_axis, axis = of_axes[len(lengths)], 2 + len(lengths)
        parts = [
            pooled(
                taken(input, axis, group.elements),
                parameter
                if sizes_of(parameter)[axis] == 1
                else taken(parameter, axis, group.windows),
                (*lengths, group.length),
            )
            for group in of_axis
        ]
        return rejoined(parts, axis, of_axis)

    output = in_layout(pooled(batched, parameter, ()), layout)
    if axes == 1:
        output = output.squeeze(2)
    return output if input.dim() == axes + 2 else output.squeeze(0)


def _backend(function: WindowFunction, input: Tensor) -> str | None:
    """The backend that computes ``function`` here; ``None``: PyTorch's operators do."""
    backend = select_backend(input.device)
    served = function.is_served_by(backend) and not _only_plain_operators()
    return backend if served else None


def _pool(
    function: WindowFunction, windows: Windows, parameter: Tensor, backend: str | None
) -> Tensor:
    if backend is not None:
        return pool(windows.padded, parameter, windows.geometry, backend, function)
    if not function.symbolic_padding:
        windows = windows.with_fixed_padding()
    output = function.compose(windows.padded, parameter, windows.geometry)
    # PyTorch's pooling of volumes knows one layout, and a parameter of each window can impose its
    # own. A graph for any size is to hold no condition on strides.
    if output.dim() == 5 or not (is_tracing() or torch.compiler.is_compiling()):
        output = in_layout(output, layout_of(windows.padded))
    return output


def _can_fuse(input: Tensor, backend: str | None) -> bool:
    return (
        backend is not None
        and torch.is_grad_enabled()
        and input.requires_grad
        and not torch.compiler.is_compiling()
        and not _is_captured()
    )


def _is_captured() -> bool:
    """Whether ``make_fx`` records the call, into a graph that may be differentiated later.

    That would hold the fused path's operator, which no gradient passes. Into AOTAutograd's graphs,
    which are made without aliases ("functional"), the gradients are recorded as well.
    """
    if _mode(_PROXY) is not None:
        return _mode(_FUNCTIONAL) is None
    return _is_dispatched_to(_PRE_DISPATCH)


def _only_plain_operators() -> bool:
    """Whether nothing but PyTorch's own operators will do.

    torch.func (grad, vmap, jacrev …) and forward-mode differentiation transform operators, an
    export to ONNX translates them, and torch.jit.trace records them.
    """
    # As torch.autograd itself asks; the first two have no public names.
    return (
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or is_tracing()
        or (torch.compiler.is_compiling() and torch.onnx.is_in_onnx_export())
    )
