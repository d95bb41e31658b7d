"""Windows as runs of elements where these lie in the input, and what is made of all of them.

A vector holds all channels of as many neighbouring pixels as fit, or as many channels of one pixel;
of contiguous tensors, which count as tensors of one channel, neighbours of one window. So lanes
that are as far apart as there are windows in the vector belong to the same one. A sum ends with
that of these lanes, and each of them gets it. What lies outside the input is in no run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from numba.extending import overload

from .compile import INLINED, ZERO, compiled, inlined
from .elements import largest, mean, smallest, total
from .simd import (
    chosen,
    filled,
    first_lanes,
    lanes_for,
    load,
    load_first,
    load_part,
    maximum,
    minimum,
    multiply_add,
    store,
    store_first,
    sum_of_lanes,
    zeros_like,
)

__all__ = [
    "Place",
    "Runs",
    "element",
    "for_each_lane",
    "own_term",
    "run_start",
    "vector_at",
    "weighted_sum",
    "write",
]


class Place(NamedTuple):
    """Where the elements of a vector's windows are.

    Attributes:
        memory: the input.
        start: the first element of the first run.
        runs: how many there are.
        runs_abreast: how many of them lie at distances of ``run_step``, before as many more begin
            ``further_step`` later.
        length: pixels in each run.
        step: from one to the next.
        windows: in the vector.
        ahead: how many pixels the vector holds.
        filled: how many pixels of a run are in vectors of which all lanes are in use.
        whole: how many are in vectors of so many pixels, in which some lanes may not be,
        used: so many are.
        left: lanes in use in a last vector of fewer pixels.
        edge: of each lane's window the first element.
        piece: how many pixels to sum up before adding them to the sums of others.
        runs_together: how many runs' sums likewise.
        least_share: a power of two, at most one over the number of elements.
        scratch: two vectors.
    """

    memory: Any
    start: Any
    runs: Any
    runs_abreast: Any
    run_step: Any
    further_step: Any
    length: Any
    step: Any
    windows: Any
    ahead: Any
    filled: Any
    whole: Any
    used: Any
    left: Any
    edge: Any
    piece: Any
    runs_together: Any
    least_share: Any
    scratch: Any


class Runs(NamedTuple):
    """The windows of a vector. Each window function derives a class of its own, for which it says
    what :func:`own_term` is.

    Attributes:
        share, reference: as those of :class:`.elements.Four`.
        place: a :class:`Place`.
        theta: what the function makes of the windows' θ.
        holding: the bits of the lanes whose terms are relative to nothing.
    """

    share: Any
    reference: Any
    place: Any
    theta: Any
    holding: Any


def own_term(window: Any, x: Any, inside: Any) -> Any:
    """The own terms of elements; ``inside`` is 1, or 0 in the lanes without an element."""
    raise NotImplementedError("own_term is for compiled functions")


@compiled
def run_start(place, run):
    """Where a run begins in the input."""
    further = run // place.runs_abreast
    return (
        place.start
        + further * place.further_step
        + (run - further * place.runs_abreast) * place.run_step
    )


@compiled
def vector_at(place, start, i):
    """The elements from pixel ``i`` of the run that begins at ``start``, and which lanes have one.

    Lanes without one hold the first of their window, so that nothing made of them is out of the
    ordinary.
    """
    memory = place.memory
    at = start + i * place.step
    ones = filled(memory, 1.0)
    if i < place.filled:
        return load(memory, at), ones
    count = place.used if i < place.whole else place.left
    kept = (1 << count) - 1
    return chosen(kept, load_first(memory, at, count), place.edge), first_lanes(ones, count)


@compiled
def write(place, target, start, i, vector, adds):
    """Writes, or adds, to the elements of ``target`` where :func:`vector_at` reads."""
    at = start + i * place.step
    if i < place.filled:
        store(target, at, load(target, at) + vector if adds else vector)
        return
    count = place.used if i < place.whole else place.left
    if adds:
        vector = load_first(target, at, count) + vector
    store_first(target, at, vector, count)


@compiled
def for_each_lane(memory, at, windows, scratch):
    """Of so many numbers from ``at`` on, one for each window, that of each lane's window."""
    if windows == 1:
        return filled(memory, memory[at])
    return _repeated(load_part(memory, at, windows), windows, scratch)


@compiled
def _repeated(vector, windows, scratch):
    """The first lanes of ``vector``, and again, in all lanes."""
    if windows == 1:
        store(scratch, ZERO, vector)
        return filled(scratch, scratch[ZERO])
    for lane in range(0, lanes_for(scratch), windows):
        store(scratch, lane, vector)
    return load(scratch, ZERO)


@compiled
def element(window, start, i):
    """The elements that :func:`vector_at` reads, and their terms."""
    x, inside = vector_at(window.place, start, i)
    return x, own_term(window, x, inside)


# ---------------------------------------------------------------- lanes of one window


@inlined
def _plus(a, b):
    return a + b


def _joined_by(either: Any) -> Any:
    """What makes one of all lanes of a window, in each of them."""

    @compiled
    def joined(place, vector):
        lanes, windows, scratch = lanes_for(place.scratch), place.windows, place.scratch
        if windows == lanes:
            return vector
        store(scratch, ZERO, vector)
        of_all = vector
        for lane in range(windows, windows * place.ahead, windows):
            of_all = either(of_all, load(scratch, lane))
        return _repeated(of_all, windows, scratch)

    return joined


_largest_of_lanes, _smallest_of_lanes = _joined_by(maximum), _joined_by(minimum)
_sum_of_some_lanes = _joined_by(_plus)


@compiled
def _sum_of_lanes(place, vector):
    if place.windows == 1:
        return filled(place.scratch, sum_of_lanes(vector))
    return _sum_of_some_lanes(place, vector)


# ---------------------------------------------------------------- sums


def _weighted_sum(f, window, given, weight):
    """Σ f(x, term, given) · weight, in the three levels of the plan."""
    place = window.place
    total = zeros_like(weight)
    for first in range(0, place.runs, place.runs_together):
        of_runs = zeros_like(weight)
        for run in range(first, min(first + place.runs_together, place.runs)):
            start = run_start(place, run)
            for begin in range(0, place.length, place.piece):
                part = zeros_like(weight)
                for i in range(begin, min(begin + place.piece, place.length), place.ahead):
                    x, term = element(window, start, i)
                    part = multiply_add(f(x, term, given), weight, part)
                of_runs = of_runs + part
        total = total + of_runs
    return _sum_of_lanes(place, total)


def weighted_sum(f: Callable, window: Any, given: Any, weight: Any) -> Any:
    """Σ f(x, term, given) · weight over a window's elements, as :func:`.elements.total`."""
    raise NotImplementedError("weighted_sum is for compiled functions")


# Numba's declaration lacks these options.
@overload(weighted_sum, jit_options=INLINED)  # pyright: ignore[reportArgumentType]
def _weighted_sum_of_runs(f, window, given, weight):
    return _weighted_sum


@overload(total, jit_options=INLINED)  # pyright: ignore[reportArgumentType]
def _total_of_runs(f, window, given):
    if not issubclass(window.instance_class, Runs):
        return None

    def implementation(f, window, given):
        one = filled(window.place.memory, 1.0)
        return weighted_sum(f, window, given, one)

    return implementation


@overload(mean, jit_options=INLINED)  # pyright: ignore[reportArgumentType]
def _mean_of_runs(f, window, given):
    if not issubclass(window.instance_class, Runs):
        return None

    def implementation(f, window, given):
        return weighted_sum(f, window, given, window.share)

    return implementation


# ---------------------------------------------------------------- extremes


@overload(largest, jit_options=INLINED)  # pyright: ignore[reportArgumentType]
def _largest_of_runs(window):
    of_lanes = _largest_of_lanes
    return _extreme_by(maximum, of_lanes) if issubclass(window.instance_class, Runs) else None


@overload(smallest, jit_options=INLINED)  # pyright: ignore[reportArgumentType]
def _smallest_of_runs(window):
    of_lanes = _smallest_of_lanes
    return _extreme_by(minimum, of_lanes) if issubclass(window.instance_class, Runs) else None


def _extreme_by(either, of_lanes):
    def implementation(window):
        place = window.place
        extreme = place.edge
        for run in range(place.runs):
            start = run_start(place, run)
            for i in range(0, place.length, place.ahead):
                x, _ = vector_at(place, start, i)
                extreme = either(x, extreme)
        return of_lanes(place, extreme)

    return implementation
