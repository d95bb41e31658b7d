"""replace_pooling: the order of things."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, SupportsIndex, TypeVar

from torch import nn
from torch.optim import Optimizer

from ..choices import check_choice
from ..tracing import check_sample_shape
from .call_plans import PlanOfCall, decide_calls, shield_others
from .decisions import Decision, decide
from .equivalents import reason_against_conv
from .making import check_pool, make_all
from .optimizers import checked_optimizers, update_optimizers
from .places import find_places, is_strided
from .plans import Plan
from .refusals import Refusal, refuse, refuse_to_guess
from .second_trace import warn_of_changes
from .selection import Selection
from .start import check_start
from .strides import check_strides, strides_to_move
from .table import Left, Replacements
from .trace import KEPT, Trace, trace_forward
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
    start: Literal["as_was"] | None = None,
    optimizer: Optimizer | Sequence[Optimizer] | None = None,
    sample_shape: tuple[int, ...] = (2, 3, 224, 224),
) -> Replacements:
    r"""Replaces the poolings of ``model``, in place, by poolings that learn what to keep.

    Every ``nn.MaxPool2d`` and ``nn.AvgPool2d`` gives way to a pooling of the same windows, so that
    all sizes stay as they were; so do those of one and of three axes (``nn.MaxPool3d`` …, to
    ``GFGPMaxEntPool3d`` …). With ``strided_convs``, every ``nn.Conv2d`` of stride 2 becomes a
    :class:`PooledConv2d`: stride 1, and directly behind it a pooling of kernel and stride 2. With
    ``strides="after_blocks"`` the pooling stands behind the last ReLU of the block, as in
    T. Kobayashi, "Global Feature Guided Local Pooling", ICCV 2019. Such a convolution then costs
    four times as much.

    Global poolings are left alone: ``nn.AdaptiveAvgPool2d``, and poolings of one window that covers
    the whole map. So are windows of one element, which leave nothing to learn, adaptive, LP and
    fractional poolings and, without ``stride_one`` and ``functional``, poolings of
    stride 1 and calls of ``F.max_pool2d`` and its kin inside a ``forward``, which are no modules.
    The result lists what is left, with the reason, but for modules that ``where`` leaves out.
    Subclasses are replaced, too, where their windows are plain: those that keep the forward, and
    those whose own forward computes what PyTorch's does, or that with TensorFlow's padding.

    Every other tensor, its name in the state dict, and ``requires_grad`` stay as they were; a new
    pooling has the device and type of the tensors around it, the training mode of what it
    replaces, the attributes, tensors and hooks that others have set on that, and fresh weights from
    PyTorch's random state. To start from pre-trained weights, load them first, and create the
    optimizer last, or pass it. A pooling that is called with several numbers of channels becomes a
    :class:`PoolingByChannels`, with one for each. In training the new poolings take two samples or
    more. Either everything is replaced or, with an error, nothing.

    What ``torch.compile`` has compiled, ``nn.DataParallel`` and ``torch.fx`` have wrapped is
    replaced inside. ``DistributedDataParallel``, FSDP, ``torch.jit`` and int8 come afterwards.

    Args:
        model: any network.
        pool: a name that :func:`gfgp_cupy.poolings.create_pooling` takes, such as ``"max_ent"``
            (:class:`gfgp_cupy.GFGPMaxEntPool2d`), or a callable that is given
            ``(num_features, kernel_size, stride, padding, ceil_mode, device=…, dtype=…)``, and
            ``count_include_pad=True`` where padding counts, and returns the pooling; its output
            must be of the place's size. ``padding`` may be ``"same"``. A class that takes
            ``kernel_size``, as this library's and PyTorch's do, is given of these, by name, what it
            takes, and so is a ``functools.partial`` of one, which may set anything but kernel,
            stride, padding and ceil mode, and has the last word on that:
            ``partial(GFGPMaxEntPool2d, norm_layer=…)``, ``partial(MaxEntPool2d, learnable=False)``.
        strided_convs: replace the strides of convolutions, too. Where a library folds several of
            them into one (``timm.utils.reparameterize_model``), the pooling stands behind them all.
        strides: ``"after_blocks"`` moves the strides of torchvision's and timm's residual blocks
            (ResNet, ResNeXt, Wide ResNet, RegNet, SE-ResNet and those of the same blocks) behind
            the block, and those of their stems behind the activation: torchvision's ``resnet50``
            becomes the published one, its weights kept. An average pooling that strides in a
            block goes. Any other stride of 2 is a place without an equivalent.
        functional: replace the calls of ``F.max_pool2d``, ``F.avg_pool2d``, their kin of one and
            of three axes, ``torch.max_pool2d`` likewise, and ``F.lp_pool2d`` in the forwards of
            modules, too. Each call gets a pooling of its own, which belongs to the module of whose
            forward it is (``pooling_calls.0`` and so on in its state dict). It is known by its
            arguments, its number of channels and how many such calls come before it in one forward;
            one that was not seen without data is a RuntimeError when it is made.
        stride_one: replace poolings of stride 1, too.
        where: is called with the path and the module of each pooling (and strided convolution), as
            ``model.named_modules()`` gives them; those for which it returns False are left alone.
            For a call inside a forward the module is the one of whose forward it is. Default: all.
        unsupported: ``"raise"`` an error that names all places that were to be replaced and have no
            equivalent, and a ``where`` that leaves them out; or ``"skip"`` and list them.
        min_channels: poolings of fewer channels are left alone. One that is called with fewer and
            with more stays in use for the fewer.
        start: ``"as_was"``: each new pooling starts as the average or the maximum that it replaces,
            so that a trained network stays as accurate as it was: Max-Ent at a constant λ near 0
            or, for a maximum, of 1000, where a sigmoid gives way to a softplus; log-sum-exp
            likewise, of 10,000; mixed and gated at a proportion near 0 or 1. To load what is
            trained so, build the network with the same arguments. Default: a start from fresh
            weights.
        optimizer: one or several that train the network: the new parameters join the first group of
            the first, under its options, and what has been replaced leaves all of them. Its groups
            stay the same objects, so that schedulers go on.
        sample_shape: [N, C, H, W] of images that the network takes. Shapes and types alone are
            traced through a copy of the network that holds no data, to find the number of channels
            of each pooling and which are global: nothing is computed, and the network, its buffers
            and PyTorch's random state stay as they are. No hook is called, unless the forward fails
            without: then the network's own forward hooks that take no keywords are (which are its
            own :func:`~gfgp_cupy.compile_kernels` says). Code behind the last pooling may need
            data. With its new poolings the network is traced again, and a UserWarning tells if its
            forward then fails or does something else, as one that asks for
            ``isinstance(module, nn.MaxPool2d)``.

    Returns:
        What was changed, and what was left; ``print`` shows both as a table. Empty, with a warning,
        if nothing was changed.

    Raises:
        TypeError: ``model`` is no module, ``pool`` is one or makes something else, ``optimizer``
            is none, ``sample_shape`` no tuple of ints, ``where`` no function or ``min_channels``
            no int.
        ValueError: ``pool`` is unknown, makes poolings of another size or is a partial class that
            sets the window; ``model`` or a part of it is distributed, scripted or int8; its forward
            fails on images of ``sample_shape``; the
            optimizer's class takes no new parameters; or, unless ``unsupported="skip"``, a pooling
            has no equivalent (``dilation``, ``return_indices=True``, ``divisor_override``, a
            forward of its own, extra state, an attribute that the new one has, too, a map of
            integers, one padded or filled with infinity right before) or its channels cannot be
            found; or, with ``start``, the pooling has no average and maximum for limits, or is to
            take a stride's place, for a stride takes one element. The message names the paths.

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
    check_start(start)
    check_choice("unsupported", unsupported, ("raise", "skip"))
    check_sample_shape("sample_shape", sample_shape)
    _check_selection(where, min_channels)
    optimizers = checked_optimizers(optimizer, model)

    selection = Selection(
        strided_convs=strided_convs,
        strides=strides,
        functional=functional,
        stride_one=stride_one,
        where=where,
        min_channels=min_channels,
    )
    check_strides(selection)
    survey = _survey(model, selection, sample_shape)
    plans = _in_order(model, [one for one in survey.decisions if isinstance(one, Plan)])
    left = [one for one in survey.decisions if isinstance(one, Left)]
    if unsupported == "raise":
        refuse_to_guess(survey.trace)
        refusals = [one for one in left if isinstance(one, Refusal)]
        refuse(refusals, survey.selected, where is None, {plan.path for plan in plans})
    outcomes = list(zip(plans, make_all(plans, pool, start), strict=True))
    obstacles = [one for _, one in outcomes if isinstance(one, Refusal)]
    made = [(plan, one) for plan, one in outcomes if not isinstance(one, Refusal)]
    if unsupported == "raise":
        refuse(obstacles, survey.selected, where is None, {plan.path for plan, _ in made})
    left = _in_order(model, [*left, *obstacles, *_rest_of_the_forward(survey.trace)])
    if not made:
        _warn_that_nothing_changed(model, selection, left)

    # Nothing has been touched so far, and nothing below can fail.
    before = dict(model.named_parameters())
    modules = dict(model.named_modules(remove_duplicate=False))
    changes = [plan.apply(model, new) for plan, new in made]
    of_modules = [pooling for plan, pooling in made if not isinstance(plan, PlanOfCall)]
    shield_others(model, survey.trace.calls.sites, of_modules)
    update_optimizers(optimizers, before, model)
    if changes:
        warn_of_changes(model, modules, survey.trace, sample_shape)
    return Replacements(changes, left)


def _check_selection(where: object, min_channels: object) -> None:
    if where is not None and not callable(where):
        raise TypeError(
            "where must be a function of the path and the module, such as "
            f"lambda path, module: path != {where!r}, got {where!r}"
        )
    if not isinstance(min_channels, SupportsIndex):
        raise TypeError(f"min_channels must be an int, got {min_channels!r}")


@dataclass(frozen=True)
class _Survey:
    """What pools in a network, and what is to become of it.

    Attributes:
        trace: what was seen of the forward.
        decisions: on all that pools, and on the strides that are to be replaced.
        selected: the paths of all that was to be replaced.
    """

    trace: Trace
    decisions: list[Decision]
    selected: list[str]


def _survey(model: nn.Module, selection: Selection, sample_shape: tuple[int, ...]) -> _Survey:
    places, of_other_kinds = find_places(model, selection)
    trace = trace_forward(model, [place.path for place in places if place.is_pooling], sample_shape)
    if trace.keeps_tensors():
        warnings.warn(KEPT, stacklevel=3)
    moves = strides_to_move(model, selection, trace)
    places = [place for place in places if place.module not in moves.moved]
    of_places = [decide(place, trace, selection) for place in places]
    of_calls, calling = decide_calls(model, trace.calls.sites, selection)
    return _Survey(
        trace,
        decisions=[*of_other_kinds, *moves.decisions, *of_places, *of_calls],
        selected=[*moves.selected, *(place.path for place in places), *calling],
    )


def _in_order(model: nn.Module, rows: list[Row]) -> list[Row]:
    """``rows`` in the order of the network's modules."""
    order = {path: i for i, (path, _) in enumerate(model.named_modules(remove_duplicate=False))}
    return sorted(rows, key=lambda row: order[row.path])


def _rest_of_the_forward(trace: Trace) -> list[Left]:
    """What pooling calls there may be that were not seen."""
    failure = trace.failure
    if failure is None:
        return []
    said = f"needs data ({type(failure.error).__name__})"
    reason = f"not seen: {said if failure.for_want_of_data else failure}"
    return [Left(failure.path, "the rest of its forward", reason)]


def _warn_that_nothing_changed(model: nn.Module, selection: Selection, left: list[Left]) -> None:
    selected = "" if selection.where is None else " that where selects"
    reasons = "; ".join(dict.fromkeys(row.reason for row in left))
    stays = f"; what pools in it stays as it is ({reasons})" if left else ""
    advice = ""
    if selection.where is None and selection.strides is None and not selection.strided_convs:
        strided = [module for module in model.modules() if is_strided(module)]
        if any(
            reason_against_conv(conv) is None and conv.out_channels >= selection.min_channels
            for conv in strided
        ):
            advice = "; strided_convs=True replaces the strides of convolutions"
    warnings.warn(
        f"replace_pooling changed nothing in {type(model).__name__}: it has no pooling module to "
        f"replace{selected}{stays}{advice}",
        stacklevel=3,
    )
