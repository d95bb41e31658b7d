"""Max-Ent pooling's arithmetic on gathered windows.

All sums are relative to the window's maximum r (minimum where λ < 0), and then to a centre c near
the mean, as in backend ``torch``. An element outside the input has a bias of −∞ on its exponent,
which gives it the weight 0.
"""

from __future__ import annotations

import numpy as np

from ..compile import compiled
from ..gathered import block_of_rows
from ..powers import exp2
from ..simd import LOG2_E, filled, lanes_for, load, maximum, square_root, store, with_sign_of

__all__ = ["INSIDE", "OUTSIDE", "average", "differentiate"]

INSIDE, OUTSIDE = 0.0, -np.inf
"""The bias of an element."""


@compiled
def average(scratch, rows, windows, with_spread, constant):
    """From elements, λ and bias: the means and, if asked for, the standard deviations."""
    for lane in range(0, windows, lanes_for(scratch)):
        _, centre, correction, inverse = _weigh(scratch, rows, lane)
        store(scratch, rows.result + lane, centre + correction)
        if with_spread:
            variance = filled(scratch, 0.0)
            for first in range(0, rows.positions, rows.block):
                part = filled(scratch, 0.0)
                for offset in block_of_rows(rows, first, lane):
                    deviation = (load(scratch, rows.elements + offset) - centre) - correction
                    weight = load(scratch, rows.weights + offset)
                    # In this order, since 0 · (a large deviation)² must not be 0 · ∞.
                    part = part + weight * deviation * deviation
                variance = variance + part
            store(scratch, rows.further + lane, square_root(variance * inverse))


@compiled
def differentiate(scratch, rows, windows, with_theta, constant):
    """From the means' gradients (in the row for results): λ's, and the elements' (as weights)."""
    for lane in range(0, windows, lanes_for(scratch)):
        lam, centre, correction, inverse = _weigh(scratch, rows, lane)
        grad = load(scratch, rows.result + lane)
        variance = filled(scratch, 0.0)
        for first in range(0, rows.positions, rows.block):
            part = filled(scratch, 0.0)
            for offset in block_of_rows(rows, first, lane):
                deviation = (load(scratch, rows.elements + offset) - centre) - correction
                probability = load(scratch, rows.weights + offset) * inverse
                moment = probability * deviation
                # Not probability · (1 + λ · deviation): where that overflows the probability is 0.
                store(scratch, rows.weights + offset, (probability + lam * moment) * grad)
                part = part + moment * deviation
            variance = variance + part
        store(scratch, rows.further + lane, variance * grad)


@compiled
def _weigh(scratch, rows, lane):
    """λ, a centre c, the correction y − c and one over the sum of the weights exp(λ (x − r)),
    halved as often as the plan says, which it leaves in their rows."""
    lam = load(scratch, lane)
    sign = with_sign_of(1.0, lam) + 0.0 * lam  # NaN where λ is
    reference = filled(scratch, -np.inf)
    for offset in range(lane, rows.positions * rows.length, rows.length):
        reference = maximum(load(scratch, rows.elements + offset) * sign, reference)
    reference = reference * sign
    exponent = lam * LOG2_E
    total = filled(scratch, 0.0)
    weighted = filled(scratch, 0.0)
    bias = rows.bias + lane
    for first in range(0, rows.positions, rows.block):
        total_part = filled(scratch, 0.0)
        weighted_part = filled(scratch, 0.0)
        for offset in block_of_rows(rows, first, lane):
            distance = load(scratch, rows.elements + offset) - reference
            weight = exp2(exponent * distance + load(scratch, bias), rows.halvings)
            store(scratch, rows.weights + offset, weight)
            total_part = total_part + weight
            weighted_part = weighted_part + weight * distance
            bias += rows.bias_step
        total = total + total_part
        weighted = weighted + weighted_part
    inverse = 1.0 / total
    centre = reference + weighted * inverse
    offcentre = filled(scratch, 0.0)
    for first in range(0, rows.positions, rows.block):
        part = filled(scratch, 0.0)
        for offset in block_of_rows(rows, first, lane):
            distance = load(scratch, rows.elements + offset) - centre
            part = part + load(scratch, rows.weights + offset) * distance
        offcentre = offcentre + part
    return lam, centre, offcentre * inverse, inverse
