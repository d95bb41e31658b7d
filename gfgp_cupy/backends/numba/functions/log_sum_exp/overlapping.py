"""Log-sum-exp pooling's arithmetic on 3×3 windows at stride 2: one exponential an element.

λ does not vary inside a plane, so windows share what is made of e^(λ x): the power less 1, whose
mean q gives y = (1/λ) log(1 + q) to the last digits. As far as |λ x| is small, as it is where x > 0
unless λ x is large, that is all a window needs. Where x is negative the power itself must be kept,
and where neither holds windows have their own, relative to the centre that :mod:`.` takes. Both are
calls apart, as is their part of ∂y/∂λ.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from ...apart import apart, usually
from ...compile import compiled, inlined
from ...elements import Nine, mean, total
from ...near_one import log_by_halves
from ...powers import constants_of, multiply_subtract, polynomial_of_type, power_of_two
from ...shared_weights import all_hold
from ...simd import (
    LOG2_E,
    Vector,
    bits_where_less,
    chosen,
    filled,
    lanes_within,
    load,
    maximum,
    minimum,
    multiply_add,
    square_root,
    zeros_like,
)
from ...strips import columns_inside, row_is_inside, share_of_columns
from ..log_mean_exp import exponent_of, hold, log_over_theta, part_of_derivative, usable
from . import summary_of
from .exponentials import power_in_parts

__all__ = [
    "joined", "kept_of", "message_of", "output_of", "scale_of", "send", "term_of", "theta_of",
    "weigh",
]  # fmt: skip

LEAST_EXCESS, MOST_EXCESS = -0.5, 2.0**20
"""Of a power less 1 that is a term. Where it is less, the term is minus the power in units, where
it is more, infinite."""

UNIT, LEAST_UNITS = 2.0**126, 2.0**30
"""A window's terms do not add up to an excess that holds if one of them is minus so many units."""

LEAST_WEIGHT = 2.0**-120
"""Of an element inside the plane: outside it is 0."""

ALL_INSIDE = 0.12
"""What a window's share is less than that has all of its nine elements."""


class Summary(NamedTuple):
    """Of a window.

    Attributes:
        share: one over the number of its elements inside.
        centre, shift: y is their sum.
        inverse_total: one over the mean of the weights.
        logarithm: λ y, where the terms are powers less 1.
        theta, inverse: λ and 1/λ for the derivative by it.
        of_term: what is to be added to a term to make a weight of it.
        holding: the bits of the lanes whose terms are powers less 1.
        memory, left: how many windows there are, see :func:`.shared_weights.all_hold`.
    """

    share: Any
    centre: Any
    shift: Any
    inverse_total: Any
    logarithm: Any
    theta: Any
    inverse: Any
    of_term: Any
    holding: Any
    memory: Any
    left: Any


@inlined
def theta_of(lam, constant):
    return exponent_of(lam)


@inlined
def scale_of(lam, constant):
    """λ log₂e, NaN where shared terms are not to hold."""
    return chosen(usable(lam), lam * LOG2_E, lam * np.nan)


@inlined
def term_of(x, scale):
    part, factor = power_in_parts(scale, x)
    excess = multiply_add(part, factor, factor - 1.0) + nothing(x)
    usual = lanes_within(excess, LEAST_EXCESS, MOST_EXCESS)
    if usual == lanes_within(zeros_like(x), 0.0, 0.0):
        return excess
    return chosen(usual, excess, _unusual_term(excess, part, factor))


def nothing(x) -> Any:
    """What is added to terms, for those that are 0 are outside the plane, and taken off their mean.
    As the smallest normal number it takes no digit from a number that has all of its own."""
    raise NotImplementedError("nothing is for compiled functions")


@overload(nothing)
def _nothing(x):
    if not isinstance(x, Vector):
        return None
    _, _, smallest = constants_of(x.element)
    least = 2.0**smallest

    def implementation(x):
        return zeros_like(x) + least

    return implementation


@inlined
def _unusual_term(excess, part, factor):
    units = minimum(multiply_add(part, factor, factor) * -UNIT, zeros_like(part) - LEAST_UNITS)
    less = bits_where_less(excess, zeros_like(excess) + LEAST_EXCESS)
    return chosen(less, units, excess * np.inf)


@inlined
def weigh(scratch, sizes, strip, k, left, top, x, terms, exponent):
    """The terms; the windows' summary."""
    rows = row_is_inside(sizes, top) + row_is_inside(sizes, top + 1) + row_is_inside(sizes, top + 2)
    of_columns, of_rows = load(scratch, share_of_columns(strip, k)), filled(scratch, 1.0 / rows)
    share = of_columns * of_rows
    nowhere = zeros_like(share)
    window = Nine(share, nowhere, x, terms)
    # Not times their product, whose rounding would leave something of nine zeros.
    q = multiply_subtract(total(_term, window, nowhere) * of_columns, of_rows, nothing(share))
    whole = q + 1.0
    logarithm = log_by_halves(whole, q)
    holding = hold(q, exponent.theta)
    summary = Summary(
        share, nowhere, logarithm * exponent.inverse, 1.0 / whole, logarithm, exponent.theta,
        exponent.inverse, nowhere + 1.0, holding, scratch, left,
    )  # fmt: skip
    if not usually(all_hold(scratch, holding, left)):
        columns = columns_inside(scratch, sizes, strip, k)
        rows_inside = (
            filled(scratch, row_is_inside(sizes, top)),
            filled(scratch, row_is_inside(sizes, top + 1)),
            filled(scratch, row_is_inside(sizes, top + 2)),
        )
        terms, summary = apart(_weighed_exactly, (window, summary, exponent, columns, rows_inside))
    return terms, summary


@inlined
def output_of(summary, exponent):
    return summary.centre + summary.shift


@inlined
def kept_of(x, terms, summary, exponent):
    return square_root(_sensitivity(x, terms, summary))


@inlined
def message_of(x, terms, summary, exponent, grad, with_theta):
    """What the window sends to its elements, and λ's gradient if it is wanted."""
    of_theta = zeros_like(grad)
    if with_theta:
        of_theta = _sensitivity(x, terms, summary) * grad
    factor = grad * summary.share * summary.inverse_total
    return factor, factor * summary.of_term, of_theta


@inlined
def send(x, terms, message):
    """The gradients of a row of elements; and λ's, of all rows."""
    factor, of_one, of_theta = message
    return (
        multiply_add(terms[0], factor, of_one),
        multiply_add(terms[1], factor, of_one),
        multiply_add(terms[2], factor, of_one),
    ), of_theta


@inlined
def joined(part, further):
    return part


@inlined
def _term(x, term, given):
    return term


# ---------------------------------------------------------------- ∂y/∂λ


@inlined
def _sensitivity(x, terms, summary):
    window = Nine(summary.share, summary.centre, x, terms)
    given = summary.theta, zeros_like(summary.logarithm) - summary.logarithm, summary.inverse_total
    everywhere = lanes_within(summary.share, 0.0, ALL_INSIDE)
    if everywhere == lanes_within(zeros_like(summary.share), 0.0, 0.0):
        parts = total(_part_of_excess, window, given) * summary.share
    else:
        parts = total(_part_where_inside, window, given) * summary.share
    sensitivity = parts * summary.inverse * summary.inverse
    if not usually(all_hold(summary.memory, summary.holding, summary.left)):
        exact = apart(_sensitivity_exactly, (window, summary))
        sensitivity = chosen(summary.holding, sensitivity, exact)
    return sensitivity


@inlined
def _part_of_excess(x, term, given):
    """z² χ(z) of :mod:`..log_mean_exp`, where z = λ (x − y) is at most log 9."""
    theta, minus_logarithm, inverse_total = given
    z = multiply_add(theta, x, minus_logarithm)
    weight = multiply_add(term, inverse_total, inverse_total)
    far = bits_where_less(z, zeros_like(z) - 1.0)
    return chosen(far, multiply_add(z - 1.0, weight, 1.0), z * z * _chi(z))


@inlined
def _part_where_inside(x, term, given):
    part = _part_of_excess(x, term, given)
    return chosen(lanes_within(term, 0.0, 0.0), zeros_like(part), part)


# χ(z) for -1 <= z <= log 9, the polynomial whose largest relative error is least: 1.5e-7 and
# 2.5e-20.
_COEFFICIENTS = {
    types.float32: (
        0.5000000388717497,
        0.3333337495307134,
        0.12499942283604121,
        0.03333055456010414,
        0.006946414789182563,
        0.001194862355673678,
        0.00017053405774944213,
        2.0262162380076646e-05,
        4.174150410367308e-06,
    ),
    types.float64: (
        0.5,
        0.3333333333333333,
        0.125,
        0.033333333333333326,
        0.006944444444444442,
        0.001190476190476229,
        0.00017361111111111342,
        2.2045855379043973e-05,
        2.4801587301979728e-06,
        2.505210841325712e-07,
        2.2964432524704636e-08,
        1.927084995201835e-09,
        1.491199465805859e-10,
        1.070611225380533e-11,
        7.167477461439712e-13,
        4.5023694127711826e-14,
        2.6917711667497753e-15,
        1.2267312064905802e-16,
        1.3644224493255689e-17,
    ),
}

_chi = polynomial_of_type(_COEFFICIENTS)


# ---------------------------------------------------------------- where powers less 1 do not hold


@compiled
def _weighed_exactly(window, summary, exponent, columns, rows):
    """Weights as terms, and what belongs to them, of the other windows."""
    usual, nowhere = summary.holding, zeros_like(window.share)
    q = mean(_excess_of, window, nowhere)
    whole = q + 1.0
    holding = hold(q, exponent.theta)
    inside = (
        _inside(columns, rows[0]),
        _inside(columns, rows[1]),
        _inside(columns, rows[2]),
    )
    own = Nine(window.share, nowhere, window.x, inside)
    centre, shift, inverse_total, theta, inverse = apart(_own_summary, (own, exponent))
    given = centre, exponent.scale, holding, usual
    x, terms = window.x, window.terms
    terms = (
        _own_weights(x[0], terms[0], inside[0], given),
        _own_weights(x[1], terms[1], inside[1], given),
        _own_weights(x[2], terms[2], inside[2], given),
    )
    shared = holding | usual
    return terms, Summary(
        window.share,
        chosen(shared, nowhere, centre),
        chosen(usual, summary.shift, chosen(holding, log_over_theta(whole, q, exponent), shift)),
        chosen(usual, summary.inverse_total, chosen(holding, 1.0 / whole, inverse_total)),
        summary.logarithm,
        chosen(shared, summary.theta, theta),
        chosen(shared, summary.inverse, inverse),
        chosen(usual, summary.of_term, nowhere),
        usual,
        summary.memory,
        summary.left,
    )


@compiled
def _own_summary(window, exponent):
    """Apart, so that what the compiler makes of the weights is the same whichever way this goes."""
    return summary_of(window, exponent)


@inlined
def _inside(columns, row):
    return columns[0] * row, columns[1] * row, columns[2] * row


@inlined
def _own_weights(x, shared, inside, given):
    return (
        _own_weight(x[0], shared[0], inside[0], given),
        _own_weight(x[1], shared[1], inside[1], given),
        _own_weight(x[2], shared[2], inside[2], given),
    )


@inlined
def _own_weight(x, shared, inside, given):
    centre, scale, holding, usual = given
    own = power_of_two(scale, x - centre) + LEAST_WEIGHT
    weight = chosen(holding, _weight_of(shared), own) * inside
    return chosen(usual, shared, weight)


@compiled
def _sensitivity_exactly(window, summary):
    of_weights = mean(_part_of_weight, window, summary)
    sensitivity = of_weights * summary.inverse * summary.inverse
    # As in :func:`.sensitivity_of`.
    return maximum(zeros_like(sensitivity), sensitivity)


@inlined
def _part_of_weight(x, term, summary):
    distance = (x - summary.centre) - summary.shift
    part = part_of_derivative(distance, term * summary.inverse_total, summary.theta)
    return chosen(lanes_within(term, 0.0, 0.0), zeros_like(x), part)


@inlined
def _weight_of(term):
    return chosen(bits_where_less(term, zeros_like(term) - 1.0), term * (-1.0 / UNIT), term + 1.0)


@inlined
def _excess_of(x, term, given):
    of_units = multiply_add(term, zeros_like(term) - 1.0 / UNIT, -1.0)
    return chosen(bits_where_less(term, zeros_like(term) - 1.0), of_units, term)
