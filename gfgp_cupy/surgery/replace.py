"""replace_pooling: the order of things."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from ..choices import check_choice
from ..poolings import create_pooling, list_poolings
from .equivalents import check_equivalents_exist
from .places import Replaceable, is_replaceable, places
from .plans import Plan, plan_of_pooling
from .start import check_start, start_as_was
from .strided_convs import plan_of_conv
from .table import Replacements
from .trace import trace_inputs

__all__ = ["replace_pooling"]


def replace_pooling(
    model: nn.Module,
    pool: str | Callable[..., nn.Module] = "max_ent",
    *,
    strided_convs: bool = False,
    where: Callable[[str, nn.Module], bool] | None = None,
    start: Literal["as_was"] | None = None,
    sample_shape: tuple[int, ...] = (2, 3, 224, 224),
) -> Replacements:
    r"""Replaces the poolings of ``model``, in place, by poolings that learn what to keep.

    Every ``nn.MaxPool2d`` and ``nn.AvgPool2d`` gives way to a pooling of the same windows, so that
    all sizes stay as they were. With ``strided_convs``, every ``nn.Conv2d`` of stride 2 becomes a
    :class:`PooledConv2d`: stride 1, and directly behind it a pooling of kernel and stride 2, as in
    T. Kobayashi, "Global Feature Guided Local Pooling", ICCV 2019 (where it stands behind the
    block's last ReLU, which only the network's author can tell). Such a convolution then costs
    four times as much.

    Global poolings are left alone: ``nn.AdaptiveAvgPool2d``, and poolings of one window that covers
    the whole map. So are calls of ``F.max_pool2d`` inside a ``forward``, which are no modules.

    Every other tensor, its name in the state dict, and ``requires_grad`` stay as they were; a new
    pooling has the device and type of the tensors around it and the training mode of what it
    replaces, and fresh weights from PyTorch's random state. To start from pre-trained weights, load
    them first, and create the optimizer last. In training the new poolings take two samples or
    more. Either everything is replaced or, with an error, nothing.

    Args:
        model: any network.
        pool: a name that :func:`gfgp_cupy.poolings.create_pooling` takes, such as ``"max_ent"``
            (:class:`gfgp_cupy.GFGPMaxEntPool2d`), or a callable that is given
            ``(num_features, kernel_size, stride, padding, ceil_mode, device=…, dtype=…)`` and
            returns the pooling.
        strided_convs: replace the strides of convolutions, too.
        where: is called with the path and the module of each pooling (and strided convolution), as
            ``model.named_modules()`` gives them; those for which it returns False are left alone.
            Default: all.
        start: ``"as_was"``: each new pooling starts as the average or the maximum that it replaces,
            so that a trained network stays as accurate as it was: at a constant λ near 0 or, for a
            maximum, of 1000, where a sigmoid gives way to a softplus. To load what is trained so,
            build the network with the same arguments. A stride is neither. Default: a start
            from fresh weights.
        sample_shape: [N, C, H, W] of images that the network takes. Shapes and types alone are
            traced through a copy of the network that holds no data, to find the number of channels
            of each pooling: nothing is computed, and the network, its buffers and the random state
            stay as they are.

    Returns:
        What was changed; ``print`` shows it as a table. Empty, with a warning, if nothing was.

    Raises:
        TypeError: ``model`` is no module, or ``pool`` is one.
        ValueError: ``pool`` is unknown, ``model`` is compiled by ``torch.jit``, a pooling has no
            equivalent (``dilation``, ``return_indices=True``, ``divisor_override``, padding that
            counts in a mean, a subclass of its own), or its channels cannot be found; or, with
            ``start``, the pooling has no such limit, or a convolution's stride is replaced. The
            message names the module's path.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2), nn.ReLU())
        >>> print(replace_pooling(model, sample_shape=(2, 3, 32, 32)))
        path  channels  was             is
        1     8         MaxPool2d(2/2)  GFGPMaxEntPool2d(2/2)
        >>> model(torch.randn(4, 3, 32, 32)).shape
        torch.Size([4, 8, 16, 16])
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError(
            "model was compiled by torch.jit, and its modules are fixed: replace its poolings "
            "before it is compiled"
        )
    make_pooling = _maker(pool)
    check_start(start)
    found = {
        path: module
        for path, module in places(model).items()
        if is_replaceable(module, strided_convs) and (where is None or where(path, module))
    }
    check_equivalents_exist(found)
    poolings = [path for path, module in found.items() if not isinstance(module, nn.Conv2d)]
    inputs = trace_inputs(model, poolings, sample_shape)
    plans: list[Plan] = [
        plan
        for path, module in found.items()
        if (plan := _plan_of(path, module, inputs)) is not None
    ]
    if not plans:
        _warn_that_nothing_changed(model, strided_convs, where)
    made = [plan.make(make_pooling) for plan in plans]
    if start is not None:
        for plan, new in zip(plans, made, strict=True):
            start_as_was(plan.path, plan.was, new)
    # Nothing has been touched so far, and nothing below can fail.
    return Replacements(plan.apply(model, new) for plan, new in zip(plans, made, strict=True))


def _plan_of(path: str, module: Replaceable, inputs: dict[str, list[Tensor]]) -> Plan | None:
    if isinstance(module, nn.Conv2d):
        return plan_of_conv(path, module)
    return plan_of_pooling(path, module, inputs[path])


def _maker(pool: str | Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    if isinstance(pool, nn.Module):
        raise TypeError(
            f"pool must be a name or a callable that makes a pooling, got a {type(pool).__name__}: "
            "each place needs one of its own; pass its class"
        )
    if callable(pool):
        return pool
    check_choice("pool", pool, list_poolings())
    return partial(create_pooling, pool)


def _warn_that_nothing_changed(model: nn.Module, strided_convs: bool, where: object) -> None:
    advice = "" if strided_convs else "; strided_convs=True replaces the strides of convolutions"
    selected = "" if where is None else " that where selects"
    warnings.warn(
        f"replace_pooling changed nothing in {type(model).__name__}: it has no MaxPool2d or "
        f"AvgPool2d module{selected} but global ones (functions called inside a forward, like "
        f"F.max_pool2d, cannot be replaced){advice}",
        stacklevel=3,
    )
