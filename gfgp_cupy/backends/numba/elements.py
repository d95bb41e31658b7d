"""A vector of windows as window functions see them, and what is made of all their elements.

Each family has its own kind of window; the folds below take any. An element outside the input has
the value of the nearest inside, which belongs to the same window, and the term 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from numba.extending import overload

from .compile import INLINED, compiled
from .simd import load, maximum, minimum, multiply_add, zeros_like

__all__ = ["Four", "Gathered", "Nine", "Window", "element", "largest", "mean", "smallest", "total"]


class Four(NamedTuple):
    """2×2 windows, all of whose elements are inside.

    Attributes:
        share: one over the number of elements inside.
        reference: what the terms are relative to.
        x, terms: the four elements, and their own terms.
    """

    share: Any
    reference: Any
    x: Any
    terms: Any


class Nine(NamedTuple):
    """3×3 windows, ``x`` and ``terms`` in rows of three; the rest as in :class:`Four`."""

    share: Any
    reference: Any
    x: Any
    terms: Any


class Gathered(NamedTuple):
    """Windows of any size in scratch memory; the rest as in :class:`Four`.

    Attributes:
        x, terms: where in ``memory`` the elements and terms of the first position begin.
        length, terms_step: from one position to the next.
        positions: of the kernel.
        block: how many positions to sum up before adding them to the sums of others.
    """

    share: Any
    reference: Any
    memory: Any
    x: Any
    terms: Any
    length: Any
    terms_step: Any
    positions: Any
    block: Any


Window = Four | Nine | Gathered


def total(f: Callable, window: Any, given: Any) -> Any:
    """Σ f(x, term, given) over a window's elements; f is 0 where the term is.

    Args:
        f: a function compiled by :func:`.compile.inlined`.
        given: a vector, or a tuple of vectors.
    """
    raise NotImplementedError("total is for compiled functions")


def mean(f: Callable, window: Any, given: Any) -> Any:
    """:func:`total` over the number of elements inside; overflows only where a summand does."""
    raise NotImplementedError("mean is for compiled functions")


def largest(window: Any) -> Any:
    """The largest element; where one is NaN, any."""
    raise NotImplementedError("largest is for compiled functions")


def smallest(window: Any) -> Any:
    """The smallest element; where one is NaN, any."""
    raise NotImplementedError("smallest is for compiled functions")


@compiled
def element(window, position):
    """The element of :class:`Gathered` windows at a position of the kernel, and its term."""
    return (
        load(window.memory, window.x + position * window.length),
        load(window.memory, window.terms + position * window.terms_step),
    )


def _by_kind(fold: Callable, four: Callable, nine: Callable, gathered: Callable) -> None:
    """Defines a fold for compiled functions: for each kind of window what computes it. (That of
    :class:`.runs.Runs` is defined there.)"""
    kinds = {Four: four, Nine: nine, Gathered: gathered}

    def of_summands(f, window, given):
        return kinds.get(window.instance_class)

    def of_elements(window):
        return kinds.get(window.instance_class)

    of_kind = of_summands if four.__code__.co_argcount == 3 else of_elements
    # Numba's declaration lacks these options.
    overload(fold, jit_options=INLINED)(of_kind)  # pyright: ignore[reportArgumentType]


# ---------------------------------------------------------------- sums


def _total_of_four(f, window, given):
    x, terms = window.x, window.terms
    return (f(x[0], terms[0], given) + f(x[1], terms[1], given)) + (
        f(x[2], terms[2], given) + f(x[3], terms[3], given)
    )


def _total_of_nine(f, window, given):
    (a, b, c), (d, e, g), (h, i, j) = window.x
    (a_, b_, c_), (d_, e_, g_), (h_, i_, j_) = window.terms
    top = f(a, a_, given) + f(b, b_, given) + f(c, c_, given)
    middle = f(d, d_, given) + f(e, e_, given) + f(g, g_, given)
    bottom = f(h, h_, given) + f(i, i_, given) + f(j, j_, given)
    return (top + middle) + bottom


def _total_of_gathered(f, window, given):
    total = zeros_like(window.share)
    for first in range(0, window.positions, window.block):
        part = zeros_like(window.share)
        for position in range(first, min(first + window.block, window.positions)):
            x, term = element(window, position)
            part = part + f(x, term, given)
        total = total + part
    return total


_by_kind(total, _total_of_four, _total_of_nine, _total_of_gathered)


def _mean_of_four(f, window, given):
    x, terms, share = window.x, window.terms, window.share
    first = multiply_add(f(x[1], terms[1], given), share, f(x[0], terms[0], given) * share)
    second = multiply_add(f(x[3], terms[3], given), share, f(x[2], terms[2], given) * share)
    return first + second


def _mean_of_nine(f, window, given):
    (a, b, c), (d, e, g), (h, i, j) = window.x
    (a_, b_, c_), (d_, e_, g_), (h_, i_, j_) = window.terms
    share = window.share
    top = multiply_add(f(b, b_, given), share, f(a, a_, given) * share)
    middle = multiply_add(f(e, e_, given), share, f(d, d_, given) * share)
    bottom = multiply_add(f(i, i_, given), share, f(h, h_, given) * share)
    top = multiply_add(f(c, c_, given), share, top)
    middle = multiply_add(f(g, g_, given), share, middle)
    bottom = multiply_add(f(j, j_, given), share, bottom)
    return (top + middle) + bottom


def _mean_of_gathered(f, window, given):
    total = zeros_like(window.share)
    for first in range(0, window.positions, window.block):
        part = zeros_like(window.share)
        for position in range(first, min(first + window.block, window.positions)):
            x, term = element(window, position)
            part = multiply_add(f(x, term, given), window.share, part)
        total = total + part
    return total


_by_kind(mean, _mean_of_four, _mean_of_nine, _mean_of_gathered)


# ---------------------------------------------------------------- extremes


def _largest_of_four(window):
    a, b, c, d = window.x
    return maximum(maximum(a, b), maximum(c, d))


def _largest_of_nine(window):
    (a, b, c), (d, e, f), (g, h, i) = window.x
    return maximum(
        maximum(maximum(maximum(a, b), c), maximum(maximum(d, e), f)), maximum(maximum(g, h), i)
    )


def _largest_of_gathered(window):
    extreme = load(window.memory, window.x)
    for position in range(1, window.positions):
        extreme = maximum(extreme, load(window.memory, window.x + position * window.length))
    return extreme


_by_kind(largest, _largest_of_four, _largest_of_nine, _largest_of_gathered)


def _smallest_of_four(window):
    a, b, c, d = window.x
    return minimum(minimum(a, b), minimum(c, d))


def _smallest_of_nine(window):
    (a, b, c), (d, e, f), (g, h, i) = window.x
    return minimum(
        minimum(minimum(minimum(a, b), c), minimum(minimum(d, e), f)), minimum(minimum(g, h), i)
    )


def _smallest_of_gathered(window):
    extreme = load(window.memory, window.x)
    for position in range(1, window.positions):
        extreme = minimum(extreme, load(window.memory, window.x + position * window.length))
    return extreme


_by_kind(smallest, _smallest_of_four, _smallest_of_nine, _smallest_of_gathered)
