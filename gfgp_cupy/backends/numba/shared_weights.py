"""Weights 2^(λ log₂e · x) that are relative to nothing, and when they hold.

A window's results then do not depend on its neighbours, although these may use its elements'
weights, and no maximum has to be found. They hold where their sum is neither small nor large. Other
windows, which are rare unless λ x is large, get weights relative to their maximum r, as in
:mod:`.windows`.
"""

from __future__ import annotations

import numpy as np

from .compile import compiled
from .simd import LOG2_E, chosen, lanes_for, lanes_within

__all__ = ["all_hold", "holds", "shared_scale"]

LEAST_TOTAL, MOST_TOTAL = 2.0**-64, 2.0**64
"""Of a window's weights, where they hold: no weight that became 0 would matter to the sum."""

LEAST_LAM, MOST_LAM = 2.0**-100, 2.0**40
"""With a smaller |λ|, 0 among them, elements whose difference is infinite could have weights that
hold; with a larger one products of weights and small elements could be too small to be exact."""

MOST_MEAN = 1e37
"""Beyond it a sum may have overflowed."""


@compiled
def shared_scale(lam):
    """λ log₂e, NaN where the weights are not to hold."""
    usable = lanes_within(lam, LEAST_LAM, MOST_LAM) | lanes_within(lam, -MOST_LAM, -LEAST_LAM)
    return chosen(usable, lam * LOG2_E, lam * np.nan)


@compiled
def holds(total, mean):
    """A number whose bit i says whether the weights of the window in lane i hold."""
    return lanes_within(total, LEAST_TOTAL, MOST_TOTAL) & lanes_within(mean, -MOST_MEAN, MOST_MEAN)


@compiled
def all_hold(memory, holding, left):
    """Whether they hold in the first ``left`` lanes of a vector of elements of ``memory``."""
    own = (1 << min(left, lanes_for(memory))) - 1
    return holding & own == own
