"""Histograms whose bins are the same for every layer and every epoch, and their quantiles."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

WIDTH = 0.02
GROWTH = 1.1
LARGEST = 1e6


def _upper_edges() -> np.ndarray:
    """Return the upper edges of the bins of positive values, from the one at 0 on."""
    linear = np.arange(1, round(1 / WIDTH) + 1) * WIDTH
    beyond = GROWTH ** np.arange(1, np.ceil(np.log(LARGEST) / np.log(GROWTH)) + 1)
    # As a file has them, so that a histogram is the same before and after it is written.
    return np.array([float(f"{edge:.6g}") for edge in (*linear, *beyond)])


@dataclass(frozen=True)
class Histogram:
    """How many values lie in each bin; bins without any are left out.

    Bins are 0.02 wide from −1 to 1, and beyond each is 10% wider than the one before, up to a
    million, where the last one takes all that is larger. A value on an edge is in the bin nearer
    to 0; 0 itself is in the one above it.

    Attributes:
        low, high: [bins] edges of the bins, ascending.
        count: [bins] whole numbers above 0.
    """

    low: np.ndarray
    high: np.ndarray
    count: np.ndarray

    @property
    def total(self) -> int:
        return int(self.count.sum())

    def contiguous(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the counts [n] and edges [n + 1] with the empty bins in between as single ones.

        Example:
            >>> import torch
            >>> counts, edges = histogram_of(torch.tensor([0.01, 0.03, 0.99])).contiguous()
            >>> counts.tolist(), edges.tolist()
            ([1, 1, 0, 1], [0.0, 0.02, 0.04, 0.98, 1.0])
        """
        counts, edges = [], list(self.low[:1])
        for low, high, count in zip(self.low, self.high, self.count, strict=True):
            if low > edges[-1]:
                counts, edges = [*counts, 0], [*edges, low]
            counts, edges = [*counts, count], [*edges, high]
        return np.array(counts), np.array(edges)

    def quantiles(self, shares: Sequence[float]) -> list[float]:
        """Return the values that ``shares`` of all are below, nan where there are none.

        Within a bin the values are taken to be spread evenly.

        Example:
            >>> import torch
            >>> histogram_of(torch.tensor([0.01, 0.03, 0.05, 0.07])).quantiles([0.5, 1.0])
            [0.04, 0.08]
        """
        if not self.total:
            return [float("nan")] * len(shares)
        ends = self.count.cumsum()
        wanted = np.asarray(shares) * self.total
        bins = np.minimum(np.searchsorted(ends, wanted), len(ends) - 1)
        within = 1 - (ends[bins] - wanted) / self.count[bins]
        values = self.low[bins] + within * (self.high - self.low)[bins]
        return [float(value) for value in values]


def histogram_of(values: Tensor) -> Histogram:
    """Return the histogram of ``values``, of any shape; what is not finite is not counted."""
    finite = values[values.isfinite()].double().flatten().numpy()
    upper = _upper_edges()
    bins = np.minimum(np.searchsorted(upper, np.abs(finite)), len(upper) - 1)
    signed = np.where(finite < 0, -bins - 1, bins)
    bins, count = np.unique(signed, return_counts=True)
    edges = np.concatenate([[0.0], upper])
    far, near = (
        edges[np.where(bins < 0, -bins, bins + 1)],
        edges[np.where(bins < 0, -bins - 1, bins)],
    )
    negative = bins < 0
    return Histogram(
        low=np.where(negative, -far, near), high=np.where(negative, 0.0 - near, far), count=count
    )
