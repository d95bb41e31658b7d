"""Mixed pooling: a times the maximum and 1 − a times the mean. Elements that are the maximum share
its gradient evenly."""

from __future__ import annotations

from ..compile import inlined
from ..elements import largest, mean, total
from ..simd import equality, maximum, zeros_like

__all__ = ["message_of", "output_of", "received", "sensitivity_of", "summary_of", "theta_of"]


@inlined
def theta_of(proportion, constant):
    return proportion


@inlined
def summary_of(window, proportion):
    """The maximum, and the mean in two parts."""
    centre = mean(_element, window, window.share)
    return largest(window), centre, mean(_deviation, window, centre)


@inlined
def output_of(summary, proportion):
    extreme, centre, correction = summary
    average = (1.0 - proportion) * (centre + correction)
    return (average + proportion * extreme) + _spoilt(centre)


@inlined
def sensitivity_of(window, summary, proportion):
    # Not less than 0, however the mean of equal elements is rounded.
    excess = (summary[0] - summary[1]) - summary[2]
    return maximum(zeros_like(excess), excess)


@inlined
def message_of(window, summary, proportion, grad):
    """The maximum, what each element that is the maximum gets, and what all get."""
    extreme, centre, _ = summary
    of_largest = grad * proportion / total(_whether_largest, window, extreme)
    return extreme, of_largest, grad * (1.0 - proportion) * window.share + _spoilt(centre)


@inlined
def received(x, term, message):
    extreme, of_largest, of_all = message
    return of_all + equality(x, extreme) * of_largest


@inlined
def _spoilt(centre):
    """0, but NaN where an element is NaN or infinite."""
    return 0.0 * centre


@inlined
def _element(x, term, given):
    return x * term


@inlined
def _deviation(x, term, centre):
    return (x - centre) * term


@inlined
def _whether_largest(x, term, extreme):
    return equality(x, extreme) * term
