"""Any window function on gathered windows: as :mod:`..max_ent.windows`."""

from __future__ import annotations

from ..compile import compiled
from ..elements import Gathered, element
from ..loading import given
from ..shared_weights import all_hold
from ..simd import chosen, filled, lanes_for, load, square_root, store

__all__ = ["INSIDE", "OUTSIDE", "average", "differentiate"]

INSIDE, OUTSIDE = 1.0, 0.0
"""What an element's term is multiplied by."""

function = given(__name__, "function")
"""The window function's module."""

keeps_root = given(__name__, "keeps_root")
"""Whether the root of ∂y/∂θ is kept."""


@compiled
def average(scratch, rows, windows, with_spread, constant):
    """From elements, θ and bias: the outputs and, if asked for, the spreads."""
    for lane in range(0, windows, lanes_for(scratch)):
        theta = function.theta_of(load(scratch, lane), constant)
        window = _window(scratch, rows, lane, windows - lane, theta)
        summary = function.summary_of(window, theta)
        store(scratch, rows.result + lane, function.output_of(summary, theta))
        if with_spread:
            kept = function.sensitivity_of(window, summary, theta)
            store(scratch, rows.further + lane, square_root(kept) if keeps_root else kept)


@compiled
def differentiate(scratch, rows, windows, with_theta, constant):
    """From the outputs' gradients (in the row for results): θ's, and the elements' (as weights)."""
    for lane in range(0, windows, lanes_for(scratch)):
        theta = function.theta_of(load(scratch, lane), constant)
        window = _window(scratch, rows, lane, windows - lane, theta)
        summary = function.summary_of(window, theta)
        grad = load(scratch, rows.result + lane)
        if with_theta:
            sensitivity = function.sensitivity_of(window, summary, theta)
            store(scratch, rows.further + lane, sensitivity * grad)
        message = function.message_of(window, summary, theta, grad)
        for position in range(rows.positions):
            x, term = element(window, position)
            gradient = function.received(x, term, message)
            store(scratch, rows.weights + position * rows.length + lane, gradient)


@compiled
def _inside(scratch, rows, lane, share, reference):
    """The windows, with terms that say which elements are inside."""
    return Gathered(
        share, reference, scratch, rows.elements + lane, rows.bias + lane, rows.length,
        rows.bias_step, rows.positions, rows.block,
    )  # fmt: skip


@compiled
def _share(scratch, rows, lane):
    """One over the number of a window's elements inside."""
    if rows.bias_step == 0:
        return filled(scratch, 1.0 / rows.positions)
    count = filled(scratch, 0.0)
    for position in range(rows.positions):
        count = count + load(scratch, rows.bias + position * rows.bias_step + lane)
    return 1.0 / count


if hasattr(function, "term_of"):

    @compiled
    def _window(scratch, rows, lane, left, theta):
        """The windows, whose terms are left in the rows for weights."""
        share, nowhere = _share(scratch, rows, lane), filled(scratch, 0.0)
        inside = _inside(scratch, rows, lane, share, nowhere)
        for position in range(rows.positions):
            x, bias = element(inside, position)
            at = rows.weights + position * rows.length + lane
            store(scratch, at, function.term_of(x, theta) * bias)
        window = _with_terms(scratch, rows, lane, share, nowhere)
        holding = function.holds(window, theta)
        if all_hold(scratch, holding, left):
            return window
        reference = chosen(holding, nowhere, function.reference_of(window, theta))
        for position in range(rows.positions):
            x, bias = element(inside, position)
            at = rows.weights + position * rows.length + lane
            relative = function.relative_term_of(x, reference, theta) * bias
            store(scratch, at, chosen(holding, load(scratch, at), relative))
        return _with_terms(scratch, rows, lane, share, reference)

    @compiled
    def _with_terms(scratch, rows, lane, share, reference):
        return Gathered(
            share, reference, scratch, rows.elements + lane, rows.weights + lane, rows.length,
            rows.length, rows.positions, rows.block,
        )  # fmt: skip

else:

    @compiled
    def _window(scratch, rows, lane, left, theta):
        return _inside(scratch, rows, lane, _share(scratch, rows, lane), filled(scratch, 0.0))
