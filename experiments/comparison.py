"""Statistics of runs that share their seeds."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from scipy import stats

from experiments.rows import Row
from training.errors import UserError

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (divisor n - 1) over the seeds."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of two values or more.

        Example:
            >>> Spread.of([1.0, 2.0, 3.0])
            Spread(mean=2.0, deviation=1.0)
        """
        return cls(statistics.fmean(values), statistics.stdev(values))


@dataclass(frozen=True)
class PairedDifference:
    """Student's two-sided t-test of the differences between two poolings, seed by seed.

    Attributes:
        pool: the one that the other is compared with.
        mean: of the differences, the other's value less that of ``pool``.
        low, high: 95% confidence interval of the mean.
        lower: number of seeds in which the other's value is the lower one, of ``seeds``.
        p: of this comparison alone.
        p_holm: the same, allowing for all comparisons of the family; see ``holm``.
    """

    pool: str
    mean: float
    low: float
    high: float
    lower: int
    seeds: int
    p: float
    p_holm: float

    @classmethod
    def of(cls, pool: str, values: Sequence[float], others: Sequence[float]) -> "PairedDifference":
        """Return the comparison of ``values`` with ``others``, those of ``pool``, by itself."""
        test = stats.ttest_rel(values, others)
        interval = test.confidence_interval(CONFIDENCE)
        pairs = list(zip(values, others, strict=True))
        return cls(
            pool=pool,
            mean=statistics.fmean(value - other for value, other in pairs),
            low=float(interval.low),
            high=float(interval.high),
            lower=sum(value < other for value, other in pairs),
            seeds=len(pairs),
            p=float(test.pvalue),
            p_holm=float(test.pvalue),
        )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return ``p_values`` such that at a level α one or more false ones come up α of the time.

    S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scand. J. Statistics, 1979.

    Example:
        >>> holm([0.01, 0.5, 0.02])
        [0.03, 0.5, 0.04]
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def complete_seeds(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return the rows by pooling, each in the order of the seeds that every pooling has.

    Raises:
        UserError: fewer than two seeds are common to all, or the rows are of different recipes.
    """
    by_pool: dict[str, dict[int, Row]] = {}
    for row in rows:
        by_pool.setdefault(row.pool, {})[row.seed] = row
    all_rows = [row for of_pool in by_pool.values() for row in of_pool.values()]
    if len({(row.recipe, row.eval_images) for row in all_rows}) > 1:
        raise UserError("the rows are of different recipes or images, and cannot be compared")
    common = set.intersection(*(set(of_pool) for of_pool in by_pool.values())) if by_pool else set()
    if len(common) < 2:
        raise UserError(
            f"{len(common)} seeds have a row of every pooling; it takes two for a deviation"
        )
    return {pool: [of_pool[seed] for seed in sorted(common)] for pool, of_pool in by_pool.items()}


def compare(values: dict[str, list[float]], pool: str) -> list[PairedDifference]:
    """Return the differences of ``pool`` to every other one of ``values`` (by pooling and seed)."""
    differences = [
        PairedDifference.of(other, values[pool], values[other]) for other in values if other != pool
    ]
    adjusted = holm([difference.p for difference in differences])
    return [
        replace(difference, p_holm=p) for difference, p in zip(differences, adjusted, strict=True)
    ]
