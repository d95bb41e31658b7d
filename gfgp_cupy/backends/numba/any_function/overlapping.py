"""Any window function on 3×3 windows at stride 2: as :mod:`..max_ent.overlapping`."""

from __future__ import annotations

from ..compile import compiled, inlined
from ..elements import Nine
from ..loading import given
from ..shared_weights import all_hold
from ..simd import chosen, load, square_root, zeros_like
from ..strips import columns_inside, row_is_inside, share_of_columns

__all__ = [
    "joined", "kept_of", "message_of", "output_of", "scale_of", "send", "term_of", "theta_of",
    "weigh",
]  # fmt: skip

function = given(__name__, "function")
"""The window function's module."""

keeps_root = given(__name__, "keeps_root")
"""Whether the root of ∂y/∂θ is kept."""


@inlined
def theta_of(parameter, constant):
    return function.theta_of(parameter, constant)


@inlined
def scale_of(parameter, constant):
    """What the terms are made with."""
    return function.theta_of(parameter, constant)


@inlined
def output_of(weighed, theta):
    return function.output_of(weighed[1], theta)


@inlined
def kept_of(x, terms, weighed, theta):
    kept = function.sensitivity_of(weighed[0], weighed[1], theta)
    return square_root(kept) if keeps_root else kept


@inlined
def message_of(x, terms, weighed, theta, grad, with_theta):
    """What the window sends to its elements, and θ's gradient if it is wanted."""
    window, summary = weighed
    of_theta = zeros_like(grad)
    if with_theta:
        of_theta = function.sensitivity_of(window, summary, theta) * grad
    return function.message_of(window, summary, theta, grad), of_theta


@inlined
def send(x, terms, message):
    """The gradients of a row of elements; and θ's, of all rows."""
    return (
        function.received(x[0], terms[0], message[0]),
        function.received(x[1], terms[1], message[0]),
        function.received(x[2], terms[2], message[0]),
    ), message[1]


@inlined
def joined(part, further):
    return part


@inlined
def _nine(scratch, sizes, strip, k, top, x, terms):
    rows = row_is_inside(sizes, top) + row_is_inside(sizes, top + 1) + row_is_inside(sizes, top + 2)
    share = load(scratch, share_of_columns(strip, k)) * (1.0 / rows)
    return Nine(share, zeros_like(share), x, terms)


if hasattr(function, "term_of"):

    @inlined
    def term_of(x, theta):
        return function.term_of(x, theta)

    @inlined
    def weigh(  # pyright: ignore[reportRedeclaration]
        scratch, sizes, strip, k, left, top, x, terms, theta
    ):  # fmt: skip
        """The terms; the windows and their summary."""
        window = _nine(scratch, sizes, strip, k, top, x, terms)
        holding = function.holds(window, theta)
        if not all_hold(scratch, holding, left):
            columns = columns_inside(scratch, sizes, strip, k)
            window = _with_own_terms(window, theta, holding, columns, sizes, top)
        return window.terms, (window, function.summary_of(window, theta))

    @compiled
    def _with_own_terms(window, theta, holding, columns, sizes, top):
        x, terms = window.x, window.terms
        reference = chosen(holding, window.reference, function.reference_of(window, theta))
        relative = reference, theta, holding, columns
        terms = (
            _own_terms(x[0], terms[0], relative, row_is_inside(sizes, top)),
            _own_terms(x[1], terms[1], relative, row_is_inside(sizes, top + 1)),
            _own_terms(x[2], terms[2], relative, row_is_inside(sizes, top + 2)),
        )
        return Nine(window.share, reference, x, terms)

    @compiled
    def _own_terms(x, shared, relative, inside):
        reference, theta, holding, columns = relative
        a = function.relative_term_of(x[0], reference, theta) * (columns[0] * inside)
        b = function.relative_term_of(x[1], reference, theta) * (columns[1] * inside)
        c = function.relative_term_of(x[2], reference, theta) * (columns[2] * inside)
        return (
            chosen(holding, shared[0], a),
            chosen(holding, shared[1], b),
            chosen(holding, shared[2], c),
        )

else:

    @inlined
    def term_of(x, theta):
        return zeros_like(x) + 1.0

    @inlined
    def weigh(scratch, sizes, strip, k, left, top, x, terms, theta):
        window = _nine(scratch, sizes, strip, k, top, x, terms)
        return terms, (window, function.summary_of(window, theta))
