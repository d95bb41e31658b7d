"""How the new poolings are made, and whether what a caller's own function makes is one."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode  # no public name, but documented

from ..adaptive import Adaptive
from ..choices import check_choice
from ..geometry import Sizes
from ..pool2d import Pool2d
from ..poolings import create_pooling, list_poolings
from ..poolings.registry import WindowNotServed
from ..tracing import WANT_OF_DATA, skeleton_of, without_data
from .equivalents import AVERAGES, MAXIMA, axes_of
from .plans import Plan
from .refusals import Refusal
from .start import as_was, check_was

__all__ = ["check_pool", "make_all"]

WINDOW = ("num_features", "kernel_size", "stride", "padding", "ceil_mode")


def make_all(
    plans: Sequence[Plan], pool: str | Callable[..., nn.Module], start: str | None
) -> list[nn.Module | Refusal]:
    """A pooling for each plan, by ``pool`` and ``start`` as :func:`replace_pooling` has them; or
    why there is none that can take its place.

    Raises:
        TypeError: ``pool`` is a module, or has returned something else.
        ValueError: it is an unknown name, or has returned a module for two places, or one whose
            output is not of its place's size, or cannot start as what was there.
    """
    make_pooling = _maker(pool)
    if start is not None:
        check_was((plan.path, plan.was) for plan in plans)
    made = [
        _made(plan, as_was(make_pooling, plan.was) if start and plan.was else make_pooling)
        for plan in plans
    ]
    if callable(pool):
        for plan, pooling in zip(plans, made, strict=True):
            if isinstance(pooling, nn.Module):
                _check_output(plan, pooling)
        if len({id(pooling) for pooling in made}) < len(made):
            raise ValueError(
                "pool returned one module for several places: it must make a new one on each call"
            )
    return [
        one if isinstance(one, Refusal) else plan.obstacle(one) or one
        for plan, one in zip(plans, made, strict=True)
    ]


def _made(plan: Plan, make_pooling: Callable[..., nn.Module]) -> nn.Module | Refusal:
    try:
        return plan.make(make_pooling)
    except WindowNotServed as error:
        return Refusal(plan.path, plan.found, error.reason, error)


def check_pool(pool: str | Callable[..., nn.Module]) -> None:
    """Checks the argument ``pool``.

    Raises:
        TypeError: it is a module, or the class of poolings that have no window of a given size.
        ValueError: it is an unknown name.
    """
    made = _made_by(pool)
    if isinstance(made, type) and issubclass(made, Adaptive):
        beside = next(each for each in made.__mro__ if not issubclass(each, Adaptive))
        raise TypeError(
            f"pool={made.__name__} has windows as its output's size wants them, and each place has "
            f"one of a given size: pass {beside.__name__}"
        )
    if isinstance(pool, nn.Module):
        raise TypeError(
            f"pool must be a name or a callable that makes a pooling, got a {type(pool).__name__}: "
            "each place needs one of its own; pass its class"
        )
    if not callable(pool):
        check_choice("pool", pool, list_poolings())


def _maker(pool: str | Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    if isinstance(pool, str):
        return partial(_by_name, pool)
    made = _made_by(pool)
    if isinstance(made, type) and "kernel_size" in inspect.signature(made).parameters:
        return partial(_by_keyword, pool, made)
    return partial(_a_module, pool)


def _made_by(pool: object) -> object:
    """What is called, in the end."""
    return pool.func if isinstance(pool, partial) else pool


def _by_name(
    pool: str, num_features: int, kernel_size: Sizes, *window: Any, **options: Any
) -> nn.Module:
    axes = len(kernel_size)
    return create_pooling(pool, num_features, kernel_size, *window, axes=axes, **options)


def _a_module(pool: Callable[..., object], *window: Any, **options: Any) -> nn.Module:
    made = pool(*window, **options)
    if not isinstance(made, nn.Module):
        raise TypeError(f"pool must return a torch.nn.Module, got {type(made).__name__}")
    return made


def _by_keyword(
    pool: Callable[..., nn.Module], made: type[nn.Module], *window: Any, **options: Any
) -> nn.Module:
    """A layer of the class ``made`` that takes its window by name, as this library's and PyTorch's
    do. ``pool`` is that class, or a partial of it, whose arguments count but for the window."""
    given = dict(zip(WINDOW, window, strict=True)) | options
    _check_axes(made, len(given["kernel_size"]))
    parameters = inspect.signature(made).parameters
    if isinstance(pool, partial):
        own = inspect.signature(made).bind_partial(*pool.args).arguments | pool.keywords
        for name in WINDOW[1:]:
            if name in own:
                raise ValueError(
                    f"pool sets {name}={own[name]!r}, and each place has a window of its own that "
                    "is to be pooled: leave it out"
                )
        given = {name: value for name, value in given.items() if name not in own}
    if "count_include_pad" in given and "count_include_pad" not in parameters:
        raise WindowNotServed(
            f"pool={made.__name__} takes no count_include_pad, which a padding that counts in the "
            "mean needs",
            "pass a callable that takes it",
        )
    # What else a place may need and does not get shows in the size of the output.
    return pool(**{name: value for name, value in given.items() if name in parameters})


def _check_axes(made: type[nn.Module], axes: int) -> None:
    """Checks that poolings of the class ``made`` have windows of so many axes."""
    if issubclass(made, Pool2d):
        own = made.axes
    elif issubclass(made, (*MAXIMA, *AVERAGES)):
        own = axes_of(made)
    else:
        return  # which shows when it is made, or in the size of its output
    if own != axes:
        other = made.__name__.replace(f"{own}d", f"{axes}d")
        there = other != made.__name__ and hasattr(sys.modules.get(made.__module__), other)
        beside = f": {other} has" if there else ""
        raise WindowNotServed(
            f"pool={made.__name__} has no windows of {axes} axes{beside}", "pass a class that has"
        )


def _check_output(plan: Plan, pooling: nn.Module) -> None:
    # Of a size at which ceil mode tells.
    sizes = [
        kernel + 5 * stride + min(1, stride - 1)
        for kernel, stride in zip(plan.window.kernel_size, plan.window.stride, strict=True)
    ]
    shape = (2, plan.num_features, *sizes)
    expected = (2, plan.num_features, *plan.window.output_size(*sizes))
    named = f"for {plan.path!r} pool returned a {type(pooling).__name__}"
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    skeleton = skeleton_of(pooling, fake).eval()
    try:
        with without_data(fake):
            output = skeleton(torch.empty(shape, device=plan.device, dtype=plan.dtype))
    except WANT_OF_DATA:
        return  # an operator of the caller's own may have no version without
    except Exception as error:  # a caller's own code, which can fail in any way
        raise ValueError(
            f"{named}, which fails on an input of shape {shape} ({type(error).__name__}: {error}): "
            "it must pool the window that it is given"
        ) from error
    got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    if got != expected:
        raise ValueError(
            f"{named}, which makes {got} of an input of shape {shape}, where the place needs "
            f"{expected}: it must pool the window that it is given"
        )
