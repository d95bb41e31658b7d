"""What generalised-mean pooling makes of p and ε, and what stands for a window."""

from __future__ import annotations

from typing import Any, NamedTuple

from ...compile import inlined
from ...simd import chosen, lanes_within, maximum, zeros_like
from ..log_mean_exp import exponent_of

__all__ = ["Summary", "Theta", "finite", "theta_of", "where_inside"]


class Theta(NamedTuple):
    """p as in :mod:`..log_mean_exp`, what 1/p lost when it was rounded, p − 1 and ε."""

    exponent: Any
    lost: Any
    less_one: Any
    eps: Any


class Summary(NamedTuple):
    """Of a window.

    Attributes:
        output: y.
        slope: what the terms are multiplied by, but for the gradient and the number of elements.
    """

    output: Any
    slope: Any


@inlined
def theta_of(p, eps):
    exponent = exponent_of(p)
    lost = (1.0 - p * exponent.inverse) * exponent.inverse
    return Theta(exponent, lost, p - 1.0, zeros_like(p) + eps)


@inlined
def finite(x, eps):
    """The element, at least ε; NaN where it is not finite."""
    # (Of two of which one is NaN, ``maximum`` gives the second.)
    return maximum(eps, x) + 0.0 * x


@inlined
def where_inside(term, value):
    return chosen(lanes_within(term, 0.0, 0.0), zeros_like(value), value)
