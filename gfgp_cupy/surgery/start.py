"""Poolings that start as the average or the maximum that they replace."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..guided import GuidedPool2d
from ..layers import GFGPMaxEntPool2d, MaxEntPool2d
from ..learned import LearnedPool2d
from ..poolings import (
    GFGPGatedPool2d,
    GFGPLogSumExpPool2d,
    GFGPMixedPool2d,
    LogSumExpPool2d,
    MixedPool2d,
)
from .equivalents import AVERAGES, MAXIMA

__all__ = ["Was", "as_was", "check_start", "check_was", "start_as", "was_of"]

Was = Literal["avg", "max"]


@dataclass(frozen=True)
class Start:
    """Where a pooling is all but an average, and where a maximum.

    Each is the value of the pooling's own parameter or, of a guided one, of what its head gives its
    last step, a sigmoid or softplus.
    """

    avg: float
    max: float


# Of ReLU's maps of standard deviation s, Max-Ent is within 1% of the maps' deviation from the
# maximum where λ > 30 / s, log-sum-exp where λ > 300 / s, and from the average where λ < 0.005 / s.
# A proportion knows no scale.
STARTS: dict[type[nn.Module], Start] = {
    MaxEntPool2d: Start(avg=0.0, max=1000.0),
    GFGPMaxEntPool2d: Start(avg=-7.0, max=1000.0),
    LogSumExpPool2d: Start(avg=0.0, max=10_000.0),
    GFGPLogSumExpPool2d: Start(avg=-7.0, max=10_000.0),
    MixedPool2d: Start(avg=-7.0, max=7.0),
    GFGPMixedPool2d: Start(avg=-7.0, max=7.0),
    GFGPGatedPool2d: Start(avg=-7.0, max=7.0),
}


def check_start(start: str | None) -> None:
    """Checks replace_pooling's ``start``.

    Raises:
        ValueError: neither None nor ``"as_was"``.
    """
    if start not in (None, "as_was"):
        raise ValueError(f"start must be None or 'as_was', got {start!r}")


def was_of(module: object) -> Was | None:
    """What a module of PyTorch's computes, or None if it is neither an average nor a maximum."""
    if isinstance(module, MAXIMA):
        return "max"
    return "avg" if isinstance(module, AVERAGES) else None


def check_was(places: Iterable[tuple[str, Was | None]]) -> None:
    """Raise ValueError if at some path neither an average nor a maximum was computed."""
    others = [repr(path) for path in dict.fromkeys(path for path, was in places if was is None)]
    if others:
        raise ValueError(
            f"start='as_was' needs averages and maxima, which {', '.join(others)} "
            f"{'computes' if len(others) == 1 else 'compute'} none of (a stride takes one element "
            "of each window): replace the rest first, without strided_convs and strides or with a "
            "where, and these in a second call without start"
        )


def as_was(make_pooling: Callable[..., nn.Module], was: Was) -> Callable[..., nn.Module]:
    """``make_pooling``, but that what it makes computes what was computed in its place.

    Raises:
        ValueError: on a call, as :func:`start_as`.
    """

    def make(*window: Any, **options: Any) -> nn.Module:
        pooling = make_pooling(*window, **options)
        start_as(pooling, was)
        return pooling

    return make


@torch.no_grad()
def start_as(pooling: nn.Module, was: Was) -> None:
    """Sets the parameter of a new ``pooling`` so that it pools as average or maximum pooling does.

    A guided one gives every sample that parameter at first: the scale of its head's last norm
    becomes 0, and learns. λ of a sigmoid is below 1; for a maximum the sigmoid of
    :class:`gfgp_cupy.GFGPMaxEntPool2d` gives way to a softplus.

    Args:
        pooling: of one of the classes in ``STARTS``.
        was: ``"avg"`` or ``"max"``.

    Raises:
        ValueError: a pooling of another class, or whose head's last norm has no scale and shift.

    Example:
        >>> pool = GFGPMaxEntPool2d(8, kernel_size=2)
        >>> start_as(pool, "max")
        >>> x = torch.randn(4, 8, 6, 6)
        >>> torch.allclose(pool(x), nn.functional.max_pool2d(x, 2), atol=0.01)
        True
    """
    start = next((STARTS[each] for each in type(pooling).__mro__ if each in STARTS), None)
    if start is None:
        raise ValueError(
            "start='as_was' needs a pooling that has an average and a maximum for limits, one of "
            f"{', '.join(each.__name__ for each in STARTS)}, got {type(pooling).__name__}"
        )
    value = start.avg if was == "avg" else start.max
    if isinstance(pooling, LearnedPool2d):
        getattr(pooling, pooling.parameter_name).fill_(value)
        return
    assert isinstance(pooling, GuidedPool2d)
    if isinstance(pooling, GFGPMaxEntPool2d) and was == "max":
        pooling.activation = "softplus"
    weight, bias = _last_scale_and_shift(pooling.head)
    weight.zero_()
    bias.fill_(value)


def _last_scale_and_shift(head: nn.Module) -> tuple[Tensor, Tensor]:
    last = head.get_submodule("norm2")
    if isinstance(last, nn.Identity):
        last = head.get_submodule("conv2")
    weight, bias = getattr(last, "weight", None), getattr(last, "bias", None)
    if not isinstance(weight, Tensor) or not isinstance(bias, Tensor):
        raise ValueError(
            f"start='as_was' sets the scale and shift of a head's last norm, and this "
            f"{type(last).__name__} has none: pass a norm_layer that has both"
        )
    return weight, bias
