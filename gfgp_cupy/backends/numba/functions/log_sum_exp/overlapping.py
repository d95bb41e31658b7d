"""Log-sum-exp pooling's arithmetic on 3×3 windows at stride 2: one exponential an element.

λ does not vary inside a plane, so windows share what is made of e^(λ x): a number that holds both
the power and the power less 1 to the last digits. Where those do not hold, windows have their own,
relative to the centre that :mod:`.` takes.
"""

from __future__ import annotations

import numpy as np

from ...compile import compiled, inlined
from ...elements import Nine, mean
from ...near_one import power_less_one
from ...powers import power_of_two
from ...shared_weights import all_hold
from ...simd import (
    LOG2_E,
    bits_where_less,
    chosen,
    lanes_within,
    load,
    minimum,
    multiply_add,
    square_root,
    zeros_like,
)
from ...strips import elements_of_row, row_is_inside, share_of_columns
from ..log_mean_exp import exponent_of, hold, log_over_theta, part_of_derivative, usable
from . import summary_of

__all__ = [
    "joined", "kept_of", "message_of", "output_of", "scale_of", "send", "term_of", "theta_of",
    "weigh",
]  # fmt: skip

UNIT = 2.0**100
"""A term is a power less 1, or, where that is less than -1/2, minus the power in such units; at
most -4, so that the two are not confused."""

NOTHING = 2.0**-120
"""What 0 is inside the plane: outside it is 0."""


@inlined
def theta_of(lam, constant):
    return exponent_of(lam)


@inlined
def scale_of(lam, constant):
    """λ log₂e, NaN where shared terms are not to hold."""
    return chosen(usable(lam), lam * LOG2_E, lam * np.nan)


@inlined
def term_of(x, scale):
    power = power_of_two(scale, x)
    small = minimum(power * -UNIT, zeros_like(x) - 4.0)
    near = power_less_one(scale, x) + NOTHING
    term = chosen(bits_where_less(power, zeros_like(x) + 0.5), small, near)
    return term + (x - x)  # NaN of minus infinity, whose power is 0


@inlined
def weigh(scratch, sizes, strip, k, left, top, x, terms, exponent):
    """The terms; the windows and their summary, as in :mod:`.`."""
    rows = row_is_inside(sizes, top) + row_is_inside(sizes, top + 1) + row_is_inside(sizes, top + 2)
    share = load(scratch, share_of_columns(strip, k)) * (1.0 / rows)
    nowhere = zeros_like(share)
    window = Nine(share, nowhere, x, terms)
    q = mean(_excess_of, window, nowhere)
    total = q + 1.0
    shift = log_over_theta(total, q, exponent)
    summary = nowhere, shift, 1.0 / total, exponent.theta, exponent.inverse
    holding = hold(q, exponent.theta)
    if not all_hold(scratch, holding, left):
        columns = elements_of_row(scratch, sizes, strip, 0, strip.inside, k)
        window, summary = _weighed_exactly(window, summary, exponent, holding, columns, sizes, top)
    return window.terms, (window, summary)


@compiled
def _weighed_exactly(window, summary, exponent, holding, columns, sizes, top):
    """What :func:`weigh` gives, with terms of their own for windows whose shared ones do not
    hold."""
    inside = (
        _inside(columns, row_is_inside(sizes, top)),
        _inside(columns, row_is_inside(sizes, top + 1)),
        _inside(columns, row_is_inside(sizes, top + 2)),
    )
    own = summary_of(Nine(window.share, window.reference, window.x, inside), exponent)
    summary = (
        chosen(holding, summary[0], own[0]),
        chosen(holding, summary[1], own[1]),
        chosen(holding, summary[2], own[2]),
        chosen(holding, summary[3], own[3]),
        chosen(holding, summary[4], own[4]),
    )
    relative = own[0], exponent.scale, holding
    x, terms = window.x, window.terms
    terms = (
        _own_terms(x[0], terms[0], inside[0], relative),
        _own_terms(x[1], terms[1], inside[1], relative),
        _own_terms(x[2], terms[2], inside[2], relative),
    )
    return Nine(window.share, window.reference, x, terms), summary


@compiled
def _inside(columns, row):
    return columns[0] * row, columns[1] * row, columns[2] * row


@compiled
def _own_terms(x, shared, inside, relative):
    centre, scale, holding = relative
    return (
        chosen(holding, shared[0], term_of(x[0] - centre, scale) * inside[0]),
        chosen(holding, shared[1], term_of(x[1] - centre, scale) * inside[1]),
        chosen(holding, shared[2], term_of(x[2] - centre, scale) * inside[2]),
    )


@inlined
def output_of(weighed, exponent):
    return weighed[1][0] + weighed[1][1]


@inlined
def kept_of(x, terms, weighed, exponent):
    return square_root(_sensitivity(weighed, exponent))


@inlined
def message_of(x, terms, weighed, exponent, grad, with_theta):
    """What the window sends to its elements, and λ's gradient if it is wanted."""
    window, summary = weighed
    of_theta = zeros_like(grad)
    if with_theta:
        of_theta = _sensitivity(weighed, exponent) * grad
    return grad * window.share * summary[2], of_theta


@inlined
def send(x, terms, message):
    """The gradients of a row of elements; and λ's, of all rows."""
    return (
        _weight_of(terms[0]) * message[0],
        _weight_of(terms[1]) * message[0],
        _weight_of(terms[2]) * message[0],
    ), message[1]


@inlined
def joined(part, further):
    return part


@inlined
def _sensitivity(weighed, exponent):
    window, summary = weighed
    inverse = summary[4]
    return mean(_part_of_derivative, window, summary) * inverse * inverse


@inlined
def _part_of_derivative(x, term, given):
    centre, shift, inverse_total, theta, _ = given
    distance = (x - centre) - shift
    part = part_of_derivative(distance, _weight_of(term) * inverse_total, theta)
    return chosen(lanes_within(term, 0.0, 0.0), zeros_like(x), part)


@inlined
def _weight_of(term):
    return chosen(bits_where_less(term, zeros_like(term) - 1.0), term * (-1.0 / UNIT), term + 1.0)


@inlined
def _excess_of(x, term, given):
    of_small = multiply_add(term, zeros_like(term) - 1.0 / UNIT, -1.0)
    return chosen(bits_where_less(term, zeros_like(term) - 1.0), of_small, term)
