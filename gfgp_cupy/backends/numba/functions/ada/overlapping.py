"""AdaPool's arithmetic on 3×3 windows at stride 2: one e^x an element, relative to nothing.

Windows whose weights e^x do not hold, or whose x² + m² is out of range, have their own, by way of
:mod:`.quotients`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ...compile import compiled, inlined
from ...elements import Nine, largest, mean, smallest
from ...powers import power_of_two
from ...shared_weights import all_hold, holds
from ...simd import LOG2_E, chosen, equality, lanes_within, load, maximum, multiply_add, zeros_like
from ...strips import row_is_inside, share_of_columns
from . import by_size_exactly, difference, is_in_all_lanes, mixed, weight_of_size
from .exp_of_likeness import exp_of_likeness
from .likeness import in_range, mean_of_parts, part_of, square_of, with_size
from .quotients import received_exactly, slope_exactly, weights_exactly

__all__ = [
    "joined", "kept_of", "message_of", "output_of", "scale_of", "send", "term_of", "theta_of",
    "weigh",
]  # fmt: skip

LEAST_TERM = 2.0**-120
"""What e^x counts as inside the plane, where it is less: outside it is 0."""

MOST_SHARE_UNCUT = 1 / 8.5
"""Of an element in a window that has all nine inside the plane: less than this."""


class Means(NamedTuple):
    """Attributes:
    holding: in which lanes the weights that are relative to nothing hold.
    middle: the windows' plain means m.
    inverse, shift: one over the sum of the weights by likeness, and what their mean is more than m.
    by_mean: each element's part of that mean's derivative by m.
    centre, inverse_by_size, shift_by_size: likewise of the weights by size, from a centre: the
        largest element, or what :mod:`.` has for it.
    """

    holding: Any
    middle: Any
    inverse: Any
    shift: Any
    by_mean: Any
    centre: Any
    inverse_by_size: Any
    shift_by_size: Any


@inlined
def theta_of(beta, constant):
    return beta


@inlined
def scale_of(beta, constant):
    """What the weights e^x are made with: 0 where β is 1 and their mean is not used."""
    return chosen(lanes_within(beta, 1.0, 1.0), zeros_like(beta), zeros_like(beta) + LOG2_E)


@inlined
def term_of(x, scale):
    if is_in_all_lanes(lanes_within(scale, 0.0, 0.0), scale):
        return zeros_like(x) + 1.0
    return maximum(power_of_two(scale, x), zeros_like(x) + LEAST_TERM)


@inlined
def weigh(scratch, sizes, strip, k, left, top, x, terms, beta):
    """What the elements get of the gradient by likeness and by size, but for factors of the window;
    the windows and their means."""
    rows = row_is_inside(sizes, top) + row_is_inside(sizes, top + 1) + row_is_inside(sizes, top + 2)
    share = load(scratch, share_of_columns(strip, k)) * (1.0 / rows)
    zero = zeros_like(share)
    # Few windows are cut by the edge; the others need no masks.
    uncut = all_hold(scratch, lanes_within(share, 0.0, MOST_SHARE_UNCUT), left)
    inside = x if uncut else _rows_inside(x, terms)
    middle = _sum(inside) * share
    window = Nine(share, zero, x, terms)
    # First what does not wait for m.
    most, total = largest(window), _sum(terms)
    inverse_by_size = 1.0 / total
    shift_by_size = _moment(terms, x, most) * inverse_by_size
    squares = _product(x[0], x[0]), _product(x[1], x[1]), _product(x[2], x[2])
    square, twice = square_of(middle), middle + middle
    holding = in_range(square, _sum(squares))
    mean_is_zero = lanes_within(middle, 0.0, 0.0)
    if not all_hold(scratch, ~mean_is_zero, left):
        holding |= _where_zero(x) & mean_is_zero
    holding &= holds(total, middle)
    h = (
        _quotients(twice, squares[0], square),
        _quotients(twice, squares[1], square),
        _quotients(twice, squares[2], square),
    )
    weights = _weights(x[0], h[0]), _weights(x[1], h[1]), _weights(x[2], h[2])
    if not uncut:
        weights = _rows_inside(weights, terms)
    inverse = 1.0 / _sum(weights)
    shift = _moment(weights, x, middle) * inverse
    parts = (
        _parts(x[0], weights[0], h[0], middle, shift),
        _parts(x[1], weights[1], h[1], middle, shift),
        _parts(x[2], weights[2], h[2], middle, shift),
    )
    by_mean = mean_of_parts(_moment(parts, x, zero), inverse, middle, share)
    by_likeness = (
        _difference(weights[0], parts[0]), _difference(weights[1], parts[1]),
        _difference(weights[2], parts[2]),
    )  # fmt: skip
    means = Means(holding, middle, inverse, shift, by_mean, most, inverse_by_size, shift_by_size)
    if not all_hold(scratch, holding, left):
        by_likeness, terms, means = _exactly(window, by_likeness, means)
    return ((by_likeness[0], terms[0]), (by_likeness[1], terms[1]), (by_likeness[2], terms[2])), (
        window,
        means,
    )


@inlined
def output_of(weighed, beta):
    _, means = weighed
    return mixed(means.middle, means.shift, means.centre, means.shift_by_size, beta)


@inlined
def kept_of(x, terms, weighed, beta):
    window, means = weighed
    kept = difference(means.middle, means.shift, means.centre, means.shift_by_size)
    is_one = lanes_within(beta, 1.0, 1.0)
    if is_one != 0:
        return chosen(is_one, _difference_exactly(window, means), kept)
    return kept


@inlined
def message_of(x, terms, weighed, beta, grad, with_theta):
    """The windows' factors, and β's gradient if it is wanted."""
    _, means = weighed
    of_theta = zeros_like(grad)
    if with_theta:
        of_theta = kept_of(x, terms, weighed, beta) * grad
    by_likeness = grad * beta
    by_size = (grad - by_likeness) * means.inverse_by_size
    return (
        by_likeness * means.inverse, by_likeness * means.by_mean,
        means.centre, by_size, by_size * (1.0 - means.shift_by_size), of_theta,
    )  # fmt: skip


@inlined
def send(x, terms, message):
    """The gradients of a row of elements; and β's, of all rows."""
    likeness, by_mean, centre, size, base, of_theta = message
    by_likeness, terms = terms
    return (
        with_size(by_likeness[0] * likeness + by_mean, terms[0], x[0] - centre, size, base),
        with_size(by_likeness[1] * likeness + by_mean, terms[1], x[1] - centre, size, base),
        with_size(by_likeness[2] * likeness + by_mean, terms[2], x[2] - centre, size, base),
    ), of_theta


@inlined
def joined(part, further):
    return part


@inlined
def _sum(rows):
    return (_sum_of_row(rows[0]) + _sum_of_row(rows[1])) + _sum_of_row(rows[2])


@inlined
def _sum_of_row(row):
    return (row[0] + row[1]) + row[2]


@inlined
def _moment(w, x, centre):
    top, middle = _moment_of_row(w[0], x[0], centre), _moment_of_row(w[1], x[1], centre)
    return (top + middle) + _moment_of_row(w[2], x[2], centre)


@inlined
def _moment_of_row(w, x, centre):
    first = w[0] * (x[0] - centre)
    return multiply_add(w[2], x[2] - centre, multiply_add(w[1], x[1] - centre, first))


@inlined
def _rows_inside(rows, terms):
    return (
        _where_inside(rows[0], terms[0]), _where_inside(rows[1], terms[1]),
        _where_inside(rows[2], terms[2]),
    )  # fmt: skip


@inlined
def _where_inside(values, terms):
    """``values``, but 0 outside."""
    return (
        _if_inside(values[0], terms[0]), _if_inside(values[1], terms[1]),
        _if_inside(values[2], terms[2]),
    )  # fmt: skip


@inlined
def _if_inside(value, term):
    return chosen(lanes_within(term, 0.0, 0.0), zeros_like(value), value)


@inlined
def _product(a, b):
    return a[0] * b[0], a[1] * b[1], a[2] * b[2]


@inlined
def _quotients(twice, squares, square):
    """h of :mod:`.likeness`."""
    return (
        twice / (squares[0] + square), twice / (squares[1] + square), twice / (squares[2] + square)
    )  # fmt: skip


@inlined
def _weights(x, h):
    return (
        exp_of_likeness(x[0] * h[0]),
        exp_of_likeness(x[1] * h[1]),
        exp_of_likeness(x[2] * h[2]),
    )


@inlined
def _parts(x, weights, h, middle, shift):
    return (
        part_of(weights[0], h[0], middle, (x[0] - middle) - shift),
        part_of(weights[1], h[1], middle, (x[1] - middle) - shift),
        part_of(weights[2], h[2], middle, (x[2] - middle) - shift),
    )


@inlined
def _difference(a, b):
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


@compiled
def _where_zero(x):
    """In which lanes all elements are 0."""
    return _where_row_is_zero(x[0]) & _where_row_is_zero(x[1]) & _where_row_is_zero(x[2])


@compiled
def _where_row_is_zero(x):
    first = lanes_within(x[0], 0.0, 0.0) & lanes_within(x[1], 0.0, 0.0)
    return first & lanes_within(x[2], 0.0, 0.0)


# ---------------------------------------------------------------- where they do not hold


@compiled
def _exactly(window, by_likeness, means):
    """What :func:`weigh` gives, with weights of their own for windows whose shared ones do not
    hold."""
    x, terms, holding, share = window.x, window.terms, means.holding, window.share
    window = _with_ones(window)
    middle, most = mean(_element, window, share), largest(window)
    likeness, shift = weights_exactly(window, middle)
    by_mean = slope_exactly(window, middle, likeness, shift) * share
    size, centre, shift_by_size = by_size_exactly(window, middle, most, smallest(window))
    given = middle, shift
    by_likeness = (
        _by_likeness_exactly(holding, by_likeness[0], x[0], given),
        _by_likeness_exactly(holding, by_likeness[1], x[1], given),
        _by_likeness_exactly(holding, by_likeness[2], x[2], given),
    )
    terms = (
        _terms_exactly(holding, terms[0], x[0], most),
        _terms_exactly(holding, terms[1], x[1], most),
        _terms_exactly(holding, terms[2], x[2], most),
    )
    means = Means(
        holding,
        chosen(holding, means.middle, middle),
        chosen(holding, means.inverse, likeness * share),
        chosen(holding, means.shift, shift),
        chosen(holding, means.by_mean, by_mean),
        chosen(holding, means.centre, centre),
        chosen(holding, means.inverse_by_size, size * share),
        chosen(holding, means.shift_by_size, shift_by_size),
    )
    return by_likeness, terms, means


@compiled
def _difference_exactly(window, means):
    """The mean by likeness less that by size, whose weights are not among the terms."""
    window, middle = _with_ones(window), means.middle
    of_size = by_size_exactly(window, middle, largest(window), smallest(window))
    return difference(middle, means.shift, of_size[1], of_size[2])


@compiled
def _with_ones(window):
    """The windows, with terms that say which elements are inside."""
    terms = window.terms
    inside = _where_term(terms[0]), _where_term(terms[1]), _where_term(terms[2])
    return Nine(window.share, window.reference, window.x, inside)


@compiled
def _where_term(terms):
    zero = zeros_like(terms[0])
    return (
        1.0 - equality(terms[0], zero), 1.0 - equality(terms[1], zero),
        1.0 - equality(terms[2], zero),
    )  # fmt: skip


@compiled
def _by_likeness_exactly(holding, by_likeness, x, given):
    middle, shift = given
    one = zeros_like(middle) + 1.0
    return (
        chosen(holding, by_likeness[0], received_exactly(x[0], middle, one, shift)),
        chosen(holding, by_likeness[1], received_exactly(x[1], middle, one, shift)),
        chosen(holding, by_likeness[2], received_exactly(x[2], middle, one, shift)),
    )


@compiled
def _terms_exactly(holding, terms, x, most):
    return (
        chosen(holding, terms[0], weight_of_size(x[0], most)),
        chosen(holding, terms[1], weight_of_size(x[1], most)),
        chosen(holding, terms[2], weight_of_size(x[2], most)),
    )


@inlined
def _element(x, term, given):
    return x * term
