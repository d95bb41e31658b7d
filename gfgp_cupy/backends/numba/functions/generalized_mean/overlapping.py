"""Generalised-mean pooling's arithmetic on 3×3 windows at stride 2: one logarithm and one power an
element.

In scratch memory an element is at least ε, its term x^(p − 1), and its further number p log x. An
element that is less than ε is −ε, and its term negative: their product is a power still, but there
is no gradient.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ...apart import apart
from ...compile import compiled, inlined
from ...elements import Nine, largest, smallest
from ...simd import (
    bits_where_less,
    chosen,
    lanes_for,
    load,
    maximum,
    multiply_add,
    zeros_like,
)
from ...strips import ELEMENTS, FIRST, MIDDLE, TERMS, row_is_inside, share_of_columns
from . import mean_holds
from .divergence import are_equal, divergence_holds, part_of_divergence, sensitivity_by
from .logarithms import Logarithm, difference, logarithm, logarithm_and_root, multiple, power
from .relative import (
    reference_of,
    relative_sensitivity_of,
    relative_summary_of,
    relative_term_of,
)
from .theta import Summary, theta_of

__all__ = [
    "joined", "kept_of", "made_of", "message_of", "output_of", "scale_of", "send", "theta_of",
    "weigh",
]  # fmt: skip


class Place(NamedTuple):
    """Where a vector of windows lies in scratch memory: its rows of elements are numbers ``first``,
    1 and ``third``, and that at ``top`` of the plane is the first."""

    scratch: Any
    sizes: Any
    strip: Any
    k: Any
    top: Any
    first: Any
    third: Any


class Weighed(NamedTuple):
    """A vector of windows.

    Attributes:
        place, share: where they lie; one over the number of elements inside.
        summary: their output and slope.
        of_mean, inverse: the logarithm of the mean of the powers, and one over that mean.
        holding, own: the bits of the lanes in which those hold, and of those that have windows.
    """

    place: Any
    share: Any
    summary: Any
    of_mean: Any
    inverse: Any
    holding: Any
    own: Any


@inlined
def scale_of(p, eps):
    return theta_of(p, eps)


@inlined
def made_of(x, theta):
    """The element, its term, and p times its logarithm: a whole number and the rest."""
    eps, p = theta.eps, theta.exponent.theta
    below = bits_where_less(x, eps)
    clamped = maximum(eps, x)
    of_x = logarithm(clamped)
    term = power(of_x, theta.less_one)
    whole, part = multiple(of_x, p)
    nothing = zeros_like(x)
    return (
        multiply_add(x, nothing, chosen(below, nothing - eps, clamped)),  # NaN of -∞
        chosen(below, nothing - term, term),
        whole,
        part,
    )


@inlined
def weigh(scratch, sizes, strip, k, left, top, x, terms, theta):
    """The terms; the windows."""
    place = Place(scratch, sizes, strip, k, top, terms[3][0], terms[3][1])
    rows = row_is_inside(sizes, top) + row_is_inside(sizes, top + 1) + row_is_inside(sizes, top + 2)
    share = load(scratch, share_of_columns(strip, k)) * (1.0 / rows)
    x, terms = _rows(place, ELEMENTS), _rows(place, TERMS)
    mean = share * (
        (_sum_of_products(x[0], terms[0]) + _sum_of_products(x[1], terms[1]))
        + _sum_of_products(x[2], terms[2])
    )
    of_mean, output = logarithm_and_root(mean, theta.exponent.inverse, theta.lost)
    inverse = 1.0 / mean
    summary = Summary(output, output * inverse)
    holding = mean_holds(mean, theta)
    own = (1 << min(left, lanes_for(scratch))) - 1
    if holding & own != own:
        terms, summary = apart(_weighed_exactly, (place, share, summary, theta, holding))
    return terms, Weighed(place, share, summary, of_mean, inverse, holding, own)


@inlined
def _sum_of_products(x, terms):
    return multiply_add(x[2], terms[2], multiply_add(x[1], terms[1], x[0] * terms[0]))


@compiled
def _weighed_exactly(place, share, summary, theta, holding):
    """Terms relative to a centre where those that are relative to nothing do not hold."""
    window = _window(place, share)
    x, inside = window.x, window.terms
    centre = reference_of(window, theta)
    relative = relative_summary_of(Nine(share, centre, x, inside), theta)
    terms = _rows(place, TERMS)
    terms = (
        _own_terms(x[0], terms[0], inside[0], (centre, theta, holding)),
        _own_terms(x[1], terms[1], inside[1], (centre, theta, holding)),
        _own_terms(x[2], terms[2], inside[2], (centre, theta, holding)),
    )
    return terms, Summary(
        chosen(holding, summary.output, relative.output),
        chosen(holding, summary.slope, relative.slope),
    )


@compiled
def _window(place, share):
    """The windows, with terms that say which elements are inside."""
    _, sizes, _, _, top, _, _ = place
    columns = _columns(place)
    inside = (
        _inside(columns, row_is_inside(sizes, top)),
        _inside(columns, row_is_inside(sizes, top + 1)),
        _inside(columns, row_is_inside(sizes, top + 2)),
    )
    return Nine(share, zeros_like(share), _rows(place, ELEMENTS), inside)


@compiled
def _inside(columns, row):
    return columns[0] * row, columns[1] * row, columns[2] * row


@compiled
def _own_terms(x, shared, inside, relative):
    centre, theta, holding = relative
    return (
        chosen(holding, shared[0], _own_term(x[0], inside[0], centre, theta)),
        chosen(holding, shared[1], _own_term(x[1], inside[1], centre, theta)),
        chosen(holding, shared[2], _own_term(x[2], inside[2], centre, theta)),
    )


@compiled
def _own_term(x, inside, centre, theta):
    """0 where there is no gradient."""
    term = relative_term_of(x, centre, theta) * inside
    return chosen(bits_where_less(x, theta.eps), zeros_like(x), term)


@inlined
def output_of(weighed, theta):
    return weighed.summary.output


@inlined
def kept_of(x, terms, weighed, theta):
    return _sensitivity_of(weighed, theta)


@inlined
def message_of(x, terms, weighed, theta, grad, with_theta):
    """What the window sends to its elements, and p's gradient if it is wanted."""
    of_theta = zeros_like(grad)
    if with_theta:
        of_theta = _sensitivity_of(weighed, theta) * grad
    return grad * weighed.share * weighed.summary.slope, of_theta


@inlined
def send(x, terms, message):
    """The gradients of a row of elements; and p's, of all rows."""
    nothing = zeros_like(message[0])
    return (
        maximum(terms[0], nothing) * message[0],
        maximum(terms[1], nothing) * message[0],
        maximum(terms[2], nothing) * message[0],
    ), message[1]


@inlined
def joined(part, further):
    return part


@inlined
def _sensitivity_of(weighed, theta):
    # Read once more, so that the rest of the loop need not keep it.
    place, p = weighed.place, theta.exponent.theta
    x, terms, columns = _rows(place, ELEMENTS), _rows(place, TERMS), _columns(place)
    whole, part = _rows(place, place.strip.further), _rows(place, place.strip.further + 2)
    given = weighed.of_mean, 0.5 * weighed.inverse, columns
    top = place.top
    divergence = (weighed.share + weighed.share) * (
        (
            _divergence(x[0], terms[0], whole[0], part[0], given) * row_is_inside(place.sizes, top)
            + _divergence(x[1], terms[1], whole[1], part[1], given)
            * row_is_inside(place.sizes, top + 1)
        )
        + _divergence(x[2], terms[2], whole[2], part[2], given)
        * row_is_inside(place.sizes, top + 2)
    )
    inverse = theta.exponent.inverse
    sensitivity = sensitivity_by(divergence, weighed.summary.output, inverse)
    holding = weighed.holding & divergence_holds(divergence, p * p)
    if holding & weighed.own != weighed.own:
        window = Nine(weighed.share, weighed.share, x, terms)
        equal = weighed.holding & are_equal(smallest(window), largest(window), theta.eps)
        sensitivity = chosen(equal, zeros_like(sensitivity), sensitivity)
        holding = holding | equal
    if holding & weighed.own != weighed.own:
        exact = apart(_sensitivity_exactly, (place, weighed.share, theta))
        sensitivity = chosen(holding, sensitivity, exact)
    return sensitivity


@inlined
def _divergence(x, terms, whole, part, given):
    """Of a row."""
    of_mean, half_inverse, columns = given
    return (
        _part(x[0] * terms[0] * half_inverse, whole[0], part[0], of_mean) * columns[0]
        + _part(x[1] * terms[1] * half_inverse, whole[1], part[1], of_mean) * columns[1]
    ) + _part(x[2] * terms[2] * half_inverse, whole[2], part[2], of_mean) * columns[2]


@inlined
def _part(weight, whole, part, of_mean):
    return part_of_divergence(weight, difference(Logarithm(whole, part), of_mean))


@compiled
def _sensitivity_exactly(place, share, theta):
    return relative_sensitivity_of(_window(place, share), theta)


@inlined
def _rows(place, kind):
    """Nine elements, or what else there is of each."""
    return _row(place, place.first, kind), _row(place, MIDDLE, kind), _row(place, place.third, kind)


@inlined
def _columns(place):
    """Which of the three columns are inside."""
    return _row(place, FIRST, place.strip.inside)


@inlined
def _row(place, slot, kind):
    """As :func:`.strips.elements_of_row`, but what does not depend on k is added up first."""
    scratch, sizes, strip, k = place.scratch, place.sizes, place.strip, place.k
    even = (4 * slot + kind) * strip.length + strip.margin
    odd = even + strip.length
    at_left = even if sizes.padding_w == 0 else odd - sizes.pixel
    at_middle = odd if sizes.padding_w == 0 else even
    at_right = even + sizes.pixel if sizes.padding_w == 0 else odd
    return load(scratch, at_left + k), load(scratch, at_middle + k), load(scratch, at_right + k)
