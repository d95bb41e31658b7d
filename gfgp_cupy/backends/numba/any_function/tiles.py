"""Any window function on 2×2 windows: as :mod:`..max_ent.tiles`."""

from __future__ import annotations

from ..compile import compiled, inlined
from ..elements import Four
from ..loading import given
from ..shared_weights import all_hold
from ..simd import chosen, filled, square_root, zeros_like

__all__ = ["differentiate", "joined", "kept_of", "output_of", "theta_of", "weigh"]

function = given(__name__, "function")
"""The window function's module."""

keeps_root = given(__name__, "keeps_root")
"""Whether the root of ∂y/∂θ is kept."""


@inlined
def theta_of(parameter, constant):
    return function.theta_of(parameter, constant)


@inlined
def output_of(weighed, theta):
    return function.output_of(weighed[1], theta)


@inlined
def kept_of(x, weighed, theta):
    kept = function.sensitivity_of(weighed[0], weighed[1], theta)
    return square_root(kept) if keeps_root else kept


@inlined
def differentiate(x, weighed, theta, grad, with_theta):
    """The elements' gradients, and θ's if it is wanted."""
    window, summary = weighed
    of_theta = zeros_like(grad)
    if with_theta:
        of_theta = function.sensitivity_of(window, summary, theta) * grad
    message = function.message_of(window, summary, theta, grad)
    terms = window.terms
    return (
        function.received(x[0], terms[0], message),
        function.received(x[1], terms[1], message),
        function.received(x[2], terms[2], message),
        function.received(x[3], terms[3], message),
    ), of_theta


@inlined
def joined(of_theta):
    return of_theta


if hasattr(function, "term_of"):

    @inlined
    def weigh(memory, x, theta, left):
        """The windows and their summary."""
        terms = (
            function.term_of(x[0], theta),
            function.term_of(x[1], theta),
            function.term_of(x[2], theta),
            function.term_of(x[3], theta),
        )
        window = Four(filled(memory, 0.25), filled(memory, 0.0), x, terms)
        holding = function.holds(window, theta)
        if not all_hold(memory, holding, left):
            window = _with_own_terms(window, theta, holding)
        return window, function.summary_of(window, theta)

    @compiled
    def _with_own_terms(window, theta, holding):
        x, terms = window.x, window.terms
        reference = chosen(holding, window.reference, function.reference_of(window, theta))
        terms = (
            chosen(holding, terms[0], function.relative_term_of(x[0], reference, theta)),
            chosen(holding, terms[1], function.relative_term_of(x[1], reference, theta)),
            chosen(holding, terms[2], function.relative_term_of(x[2], reference, theta)),
            chosen(holding, terms[3], function.relative_term_of(x[3], reference, theta)),
        )
        return Four(window.share, reference, x, terms)

else:

    @inlined
    def weigh(memory, x, theta, left):
        one = filled(memory, 1.0)
        window = Four(filled(memory, 0.25), filled(memory, 0.0), x, (one, one, one, one))
        return window, function.summary_of(window, theta)
