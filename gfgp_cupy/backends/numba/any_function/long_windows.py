"""Any window function on windows as runs of elements (:mod:`..runs`)."""

from __future__ import annotations

from numba.extending import overload

from ..apart import apart
from ..compile import INLINED, compiled
from ..loading import given
from ..runs import Runs, element, own_term, run_start, write
from ..simd import chosen, lanes_within, square_root, zeros_like

__all__ = ["average", "differentiate"]

function = given(__name__, "function")
"""The window function's module."""

keeps_root = given(__name__, "keeps_root")
"""Whether the root of ∂y/∂θ is kept."""


@compiled
def average(place, share, parameter, with_spread, constant):
    """The outputs and, if asked for, the spreads."""
    theta = function.theta_of(parameter, constant)
    window = _window(place, share, theta)
    summary = function.summary_of(window, theta)
    output = function.output_of(summary, theta)
    kept = zeros_like(share)
    if with_spread:
        kept = function.sensitivity_of(window, summary, theta)
        if keeps_root:
            kept = square_root(kept)
    return output, kept


@compiled
def differentiate(
    place, share, parameter, grad, with_theta, constant, target, with_target, first, adds
):
    """θ's gradients; those of the elements are put, with ``first`` as a summand more, or added, to
    where ``target`` has the elements' places."""
    theta = function.theta_of(parameter, constant)
    window = _window(place, share, theta)
    summary = function.summary_of(window, theta)
    of_theta = zeros_like(share)
    if with_theta:
        of_theta = function.sensitivity_of(window, summary, theta) * grad
    if with_target:
        message = function.message_of(window, summary, theta, grad)
        for run in range(place.runs):
            start = run_start(place, run)
            for i in range(0, place.length, place.ahead):
                x, term = element(window, start, i)
                write(place, target, start, i, function.received(x, term, message) + first, adds)
    return of_theta


@compiled
def _every_lane(vector):
    return lanes_within(zeros_like(vector), 0.0, 0.0)


class OwnRuns(Runs):
    """Windows of this function."""


# Numba's declaration lacks these options.
@overload(own_term, jit_options=INLINED)  # pyright: ignore[reportArgumentType]
def _own_term_of(window, x, inside):
    return _own_term if window.instance_class is OwnRuns else None


if hasattr(function, "term_of"):

    @compiled
    def _relative_term(x, reference, theta):
        return function.relative_term_of(x, reference, theta)

    def _own_term(window, x, inside):
        if window.holding == lanes_within(zeros_like(x), 0.0, 0.0):
            return function.term_of(x, window.theta) * inside
        relative = apart(_relative_term, (x, window.reference, window.theta))
        return chosen(window.holding, function.term_of(x, window.theta), relative) * inside

    @compiled
    def _window(place, share, theta):
        nowhere, everywhere = zeros_like(share), _every_lane(share)
        window = OwnRuns(share, nowhere, place, theta, everywhere)
        holding = function.holds(window, theta)
        if holding == everywhere:
            return window
        reference = chosen(holding, nowhere, function.reference_of(window, theta))
        return OwnRuns(share, reference, place, theta, holding)

else:

    def _own_term(window, x, inside):
        return inside

    @compiled
    def _window(place, share, theta):
        return OwnRuns(share, zeros_like(share), place, theta, _every_lane(share))
