"""Max-Ent pooling as a window function of the interface that all have (:mod:`..functions`): for
windows too long to keep their weights, which are made anew in each pass over the elements.

The sums are those of :mod:`.windows`: relative to the window's maximum, or minimum where λ < 0, and
then to a centre near the mean. Weights are multiplied by a power of two, not by one over the number
of elements, so that at λ = 0 their sum is exact.
"""

from __future__ import annotations

from ..compile import inlined
from ..elements import largest, smallest
from ..powers import exp2
from ..runs import weighted_sum
from ..simd import LOG2_E, bits_where_less, chosen, zeros_like

__all__ = ["message_of", "output_of", "received", "sensitivity_of", "summary_of", "theta_of"]


@inlined
def theta_of(lam, constant):
    return lam


@inlined
def summary_of(window, lam):
    """How elements are weighed, one over the sum of the weights, and the mean in two parts."""
    weighing, share = (lam * LOG2_E, _reference(window, lam)), window.place.least_share
    inverse = 1.0 / weighted_sum(_weight, window, weighing, share)
    about = (*weighing, weighing[1])
    centre = weighing[1] + weighted_sum(_weighted, window, about, share) * inverse
    correction = weighted_sum(_weighted, window, (*weighing, centre), share) * inverse
    return weighing, inverse, centre, correction


@inlined
def output_of(summary, lam):
    return summary[2] + summary[3]


@inlined
def sensitivity_of(window, summary, lam):
    weighing, inverse, centre, correction = summary
    given = (*weighing, centre, correction)
    return weighted_sum(_squared, window, given, window.place.least_share) * inverse


@inlined
def message_of(window, summary, lam, grad):
    weighing, inverse, centre, correction = summary
    return (*weighing, centre, correction, inverse * window.place.least_share, lam, grad)


@inlined
def received(x, term, message):
    exponent, reference, centre, correction, inverse, lam, grad = message
    probability = _weight(x, term, (exponent, reference)) * inverse
    # Not probability · (1 + λ · deviation): where that overflows the probability is 0.
    return (probability + lam * (probability * ((x - centre) - correction))) * grad


@inlined
def _reference(window, lam):
    negative = bits_where_less(lam, zeros_like(lam))
    reference = largest(window)
    if negative != 0:
        reference = chosen(negative, smallest(window), reference)
    return reference + 0.0 * lam  # NaN where λ is


@inlined
def _weight(x, term, weighing):
    return exp2(weighing[0] * (x - weighing[1]), 0) * term


@inlined
def _weighted(x, term, given):
    exponent, reference, centre = given
    return _weight(x, term, (exponent, reference)) * (x - centre)


@inlined
def _squared(x, term, given):
    exponent, reference, centre, correction = given
    deviation = (x - centre) - correction
    # In this order, since 0 · (a large deviation)² must not be 0 · ∞.
    return _weight(x, term, (exponent, reference)) * deviation * deviation
