"""Generalised-mean pooling's arithmetic on 2×2 windows: an element's logarithm is taken once, for
its power and for the derivative by p."""

from __future__ import annotations

from typing import Any, NamedTuple

from ...apart import apart
from ...compile import compiled, inlined
from ...elements import Four, largest, smallest
from ...simd import bits_where_less, chosen, filled, lanes_for, maximum, zeros_like
from . import MOST_MEAN, mean_holds, message_of, received
from .abreast import logarithms, powers
from .divergence import are_equal, divergence_holds, part_of_divergence, sensitivity_by
from .logarithms import difference, logarithm_and_root, product
from .relative import (
    reference_of,
    relative_sensitivity_of,
    relative_summary_of,
    relative_term_of,
)
from .theta import Summary, theta_of

__all__ = ["differentiate", "joined", "kept_of", "output_of", "theta_of", "weigh"]


class Weighed(NamedTuple):
    """A vector of windows.

    Attributes:
        window: its elements and their terms.
        summary: its output and slope.
        logarithms, powers: of the powers x^p; and those.
        of_mean, inverse: the powers' mean's logarithm, and one over it.
        holding, own: the bits of the lanes in which those hold, and of those that have windows.
    """

    window: Any
    summary: Any
    logarithms: Any
    powers: Any
    of_mean: Any
    inverse: Any
    holding: Any
    own: Any


@inlined
def weigh(memory, x, theta, left):
    eps, less_one = theta.eps, theta.less_one
    a, b, c, d = maximum(eps, x[0]), maximum(eps, x[1]), maximum(eps, x[2]), maximum(eps, x[3])
    of_elements = logarithms((a, b, c, d))
    terms, of_terms = powers(of_elements, less_one)
    of_p = a * terms[0], b * terms[1], c * terms[2], d * terms[3]
    mean = ((of_p[0] + of_p[1]) + (of_p[2] + of_p[3])) * 0.25
    of_mean, output = logarithm_and_root(mean, theta.exponent.inverse, theta.lost)
    inverse = 1.0 / mean
    window = Four(filled(memory, 0.25), filled(memory, 0.0), x, terms)
    summary = Summary(output, output * inverse)
    # An element that is -∞ has the power of ε.
    total = (x[0] + x[1]) + (x[2] + x[3])
    holding = mean_holds(mean, theta) & bits_where_less(zeros_like(mean) - MOST_MEAN, total)
    own = (1 << min(left, lanes_for(memory))) - 1
    if holding & own != own:
        window, summary = apart(_weighed_exactly, (window, summary, theta, holding))
    of_powers = (
        product(of_elements[0], of_terms[0]),
        product(of_elements[1], of_terms[1]),
        product(of_elements[2], of_terms[2]),
        product(of_elements[3], of_terms[3]),
    )
    return Weighed(window, summary, of_powers, of_p, of_mean, inverse, holding, own)


@compiled
def _weighed_exactly(window, summary, theta, holding):
    """Terms relative to a centre where those that are relative to nothing do not hold."""
    x, terms = window.x, window.terms
    centre = reference_of(_with_terms_of_one(window), theta)
    own = (
        relative_term_of(x[0], centre, theta),
        relative_term_of(x[1], centre, theta),
        relative_term_of(x[2], centre, theta),
        relative_term_of(x[3], centre, theta),
    )
    relative = relative_summary_of(Four(window.share, centre, x, own), theta)
    terms = (
        chosen(holding, terms[0], own[0]),
        chosen(holding, terms[1], own[1]),
        chosen(holding, terms[2], own[2]),
        chosen(holding, terms[3], own[3]),
    )
    summary = Summary(
        chosen(holding, summary.output, relative.output),
        chosen(holding, summary.slope, relative.slope),
    )
    return Four(window.share, window.reference, x, terms), summary


@inlined
def output_of(weighed, theta):
    return weighed.summary.output


@inlined
def kept_of(x, weighed, theta):
    return _sensitivity_of(weighed, theta)


@inlined
def differentiate(x, weighed, theta, grad, with_theta):
    """The elements' gradients, and p's if it is wanted."""
    of_theta = zeros_like(grad)
    if with_theta:
        of_theta = _sensitivity_of(weighed, theta) * grad
    message = message_of(weighed.window, weighed.summary, theta, grad)
    terms = weighed.window.terms
    return (
        received(x[0], terms[0], message),
        received(x[1], terms[1], message),
        received(x[2], terms[2], message),
        received(x[3], terms[3], message),
    ), of_theta


@inlined
def joined(of_theta):
    return of_theta


@inlined
def _sensitivity_of(weighed, theta):
    logarithms, powers, p = weighed.logarithms, weighed.powers, theta.exponent.theta
    of_mean, half_inverse = weighed.of_mean, 0.5 * weighed.inverse
    # Half the mean of halves.
    divergence = 0.5 * (
        (
            part_of_divergence(powers[0] * half_inverse, difference(logarithms[0], of_mean))
            + part_of_divergence(powers[1] * half_inverse, difference(logarithms[1], of_mean))
        )
        + (
            part_of_divergence(powers[2] * half_inverse, difference(logarithms[2], of_mean))
            + part_of_divergence(powers[3] * half_inverse, difference(logarithms[3], of_mean))
        )
    )
    sensitivity = sensitivity_by(divergence, weighed.summary.output, theta.exponent.inverse)
    holding = weighed.holding & divergence_holds(divergence, p * p)
    if holding & weighed.own != weighed.own:
        window = weighed.window
        equal = weighed.holding & are_equal(smallest(window), largest(window), theta.eps)
        sensitivity = chosen(equal, zeros_like(sensitivity), sensitivity)
        holding = holding | equal
    if holding & weighed.own != weighed.own:
        exact = apart(relative_sensitivity_of, (_with_terms_of_one(weighed.window), theta))
        sensitivity = chosen(holding, sensitivity, exact)
    return sensitivity


@inlined
def _with_terms_of_one(window):
    one = zeros_like(window.share) + 1.0
    return Four(window.share, window.reference, window.x, (one, one, one, one))
