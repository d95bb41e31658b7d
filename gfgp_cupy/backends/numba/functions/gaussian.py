"""Gaussian pooling: μ + w σ. The variance is about a centre near the mean, so none of its digits
are lost where elements are large and differ little."""

from __future__ import annotations

from ..compile import inlined
from ..elements import mean
from ..simd import bits_where_less, chosen, maximum, square_root, zeros_like

__all__ = ["message_of", "output_of", "received", "sensitivity_of", "summary_of", "theta_of"]


@inlined
def theta_of(weight, least_variance):
    return weight, zeros_like(weight) + least_variance


@inlined
def summary_of(window, theta):
    """The mean in two parts, the standard deviation, and where it is the least there is."""
    centre = mean(_element, window, window.share)
    correction = mean(_deviation, window, centre)
    variance = mean(_square, window, (centre, correction))
    # In this order, since the second is returned where one is NaN.
    deviation = square_root(maximum(theta[1], variance))
    return centre, correction, deviation, variance


@inlined
def output_of(summary, theta):
    centre, correction, deviation, _ = summary
    return centre + (correction + theta[0] * deviation)


@inlined
def sensitivity_of(window, summary, theta):
    return summary[2]


@inlined
def message_of(window, summary, theta, grad):
    """What each element gets, what it gets per deviation, and the mean."""
    centre, correction, deviation, variance = summary
    weight, least = theta
    shared = grad * window.share
    constant = bits_where_less(variance, least)
    per_deviation = chosen(constant, zeros_like(grad), shared * weight / deviation)
    return shared, per_deviation, centre, correction


@inlined
def received(x, term, message):
    shared, per_deviation, centre, correction = message
    return shared + per_deviation * ((x - centre) - correction)


@inlined
def _element(x, term, given):
    return x * term


@inlined
def _deviation(x, term, centre):
    return (x - centre) * term


@inlined
def _square(x, term, about):
    deviation = (x - about[0]) - about[1]
    return deviation * term * deviation
