"""replace_pooling: the order of things."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import nn
from torch.optim import Optimizer

from ..choices import check_choice
from .call_plans import decide_calls, shield_others
from .decisions import Decision, decide
from .making import check_pool, make_all
from .optimizers import checked_optimizers, update_optimizers
from .places import find_places
from .plans import Plan
from .refusals import Refusal, refuse, refuse_to_guess
from .strides import strides_to_move
from .table import Left, Replacements
from .trace import Trace, trace_forward
from .wrappers import check_not_fixed

__all__ = ["replace_pooling"]

Row = TypeVar("Row", Plan, Left)


def replace_pooling(
    model: nn.Module,
    pool: str | Callable[..., nn.Module] = "max_ent",
    *,
    strided_convs: bool = False,
    strides: str | None = None,
    functional: bool = False,
    stride_one: bool = False,
    where: Callable[[str, nn.Module], bool] | None = None,
    unsupported: str = "raise",
    min_channels: int = 1,
    optimizer: Optimizer | Sequence[Optimizer] | None = None,
    sample_shape: tuple[int, ...] = (2, 3, 224, 224),
) -> Replacements:
    r"""Replaces the poolings of ``model``, in place, by poolings that learn what to keep.

    Every ``nn.MaxPool2d`` and ``nn.AvgPool2d`` gives way to a pooling of the same windows, so that
    all sizes stay as they were. With ``strided_convs``, every ``nn.Conv2d`` of stride 2 becomes a
    :class:`PooledConv2d`: stride 1, and directly behind it a pooling of kernel and stride 2. With
    ``strides="after_blocks"`` the pooling stands behind the last ReLU of the block, as in
    T. Kobayashi, "Global Feature Guided Local Pooling", ICCV 2019. Such a convolution then costs
    four times as much.

    Global poolings are left alone: ``nn.AdaptiveAvgPool2d``, and poolings of one window that covers
    the whole map. So are, without ``functional``, calls of ``F.max_pool2d`` and its kin inside a
    ``forward``, which are no modules.

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
        strided_convs: replace the strides of convolutions, too. Where a library folds several of
            them into one (``timm.utils.reparameterize_model``), the pooling stands behind them all.
        strides: ``"after_blocks"`` moves the strides of torchvision's and timm's residual blocks
            (ResNet, ResNeXt, Wide ResNet, RegNet, SE-ResNet and those of the same blocks) behind
            the block, and those of their stems behind the activation: torchvision's ``resnet50``
            becomes the published one, its weights kept. An average pooling that strides in a
            block goes. Any other stride of 2 is a place without an equivalent.
        functional: replace the calls of ``F.max_pool2d``, ``F.avg_pool2d``, ``F.lp_pool2d`` and
            ``torch.max_pool2d`` in the forwards of modules, too. Each call gets a pooling of its
            own, which belongs to the module of whose forward it is (``pooling_calls.0`` and so on
            in its state dict). It is known by its arguments, its number of channels and how many
            such calls come before it in one forward; one that was not seen without data is a
            RuntimeError when it is made.
        where: is called with the path and the module of each pooling (and strided convolution), as
            ``model.named_modules()`` gives them; those for which it returns False are left alone.
            For a call inside a forward the module is the one of whose forward it is. Default: all.
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
            counts in a mean, a subclass of its own), or its channels cannot be found. The message
            names the module's path.

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
    check_not_fixed(model)
    check_pool(pool)
    check_choice("unsupported", unsupported, ("raise", "skip"))
    optimizers = checked_optimizers(optimizer)

    moves = strides_to_move(
        model, strides, strided_convs=strided_convs, where=where, min_channels=min_channels
    )
    places, of_other_kinds = find_places(model, strided_convs, where)
    places = [place for place in places if place.module not in moves.moved]
    trace = trace_forward(model, [place.path for place in places if place.is_pooling], sample_shape)
    decisions: list[Decision] = [
        *of_other_kinds,
        *moves.decisions,
        *(decide(p, trace, stride_one=stride_one, min_channels=min_channels) for p in places),
    ]
    of_calls, calling = decide_calls(
        model,
        trace.calls.sites.values(),
        functional=functional,
        where=where,
        stride_one=stride_one,
        min_channels=min_channels,
    )
    decisions += of_calls
    plans = _in_order(model, [one for one in decisions if isinstance(one, Plan)])
    left = [one for one in decisions if isinstance(one, Left)]

    selected = [*moves.selected, *(place.path for place in places), *calling], where is None
    if unsupported == "raise":
        refuse_to_guess(trace)
        refuse([one for one in left if isinstance(one, Refusal)], *selected)
    made = list(zip(plans, make_all(plans, pool), strict=True))
    obstacles = [one for plan, pooling in made if (one := plan.obstacle(pooling))]
    if unsupported == "raise":
        refuse(obstacles, *selected)
    blocked = {refusal.path for refusal in obstacles}
    left = _in_order(model, [*left, *obstacles]) + _rest_of_the_forward(trace)
    if len(blocked) == len(made):
        _warn_that_nothing_changed(model, strided_convs, functional, where)

    # Nothing has been touched so far, and nothing below can fail.
    before = dict(model.named_parameters())
    changes = [plan.apply(model, new) for plan, new in made if plan.path not in blocked]
    shield_others(model, trace.calls.sites.values(), [(plan.path, new) for plan, new in made])
    update_optimizers(optimizers, before, model)
    return Replacements(changes, left)


def _in_order(model: nn.Module, rows: list[Row]) -> list[Row]:
    """``rows`` in the order of the network's modules."""
    order = {path: i for i, (path, _) in enumerate(model.named_modules(remove_duplicate=False))}
    return sorted(rows, key=lambda row: order[row.path])


def _rest_of_the_forward(trace: Trace) -> list[Left]:
    if trace.failure is None:
        return []
    return [Left(trace.failure.path, "what its forward calls from here on", str(trace.failure))]


def _warn_that_nothing_changed(
    model: nn.Module, strided_convs: bool, functional: bool, where: object
) -> None:
    others = {
        "functional=True replaces calls of F.max_pool2d and its kin inside a forward": functional,
        "strided_convs=True replaces the strides of convolutions": strided_convs,
    }
    advice = "".join(f"; {advice}" for advice, followed in others.items() if not followed)
    selected = "" if where is None else " that where selects"
    warnings.warn(
        f"replace_pooling changed nothing in {type(model).__name__}: it has no MaxPool2d or "
        f"AvgPool2d module{selected} but global ones{advice}",
        stacklevel=3,
    )
