"""Mixed pooling: a times the maximum and 1 − a times the mean. Elements that are the maximum share
its gradient evenly."""

from __future__ import annotations

from ..compile import inlined
from ..elements import largest, mean, total
from ..simd import equality

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
    # NaN where the mean is, and where the maximum or the mean is infinite.
    return summary[1] + (summary[2] + proportion * _excess(summary))


@inlined
def sensitivity_of(window, summary, proportion):
    return _excess(summary)


@inlined
def message_of(window, summary, proportion, grad):
    """The maximum, what each element that is the maximum gets, and what all get."""
    extreme = summary[0]
    # 0, but NaN where the output is.
    spoilt = 0.0 * _excess(summary)
    of_largest = grad * proportion / total(_whether_largest, window, extreme)
    return extreme, of_largest, grad * (1.0 - proportion) * window.share + spoilt


@inlined
def received(x, term, message):
    extreme, of_largest, of_all = message
    return of_all + equality(x, extreme) * of_largest


@inlined
def _excess(summary):
    """The maximum less the mean."""
    return (summary[0] - summary[1]) - summary[2]


@inlined
def _element(x, term, given):
    return x * term


@inlined
def _deviation(x, term, centre):
    return (x - centre) * term


@inlined
def _whether_largest(x, term, extreme):
    return equality(x, extreme) * term
