"""Statistics of runs that share their seeds."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scipy import stats

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
        seeds: number of differences.
        p: of this comparison alone.
        p_holm: the same, allowing for all comparisons of the family; see ``holm``.
    """

    pool: str
    mean: float
    low: float
    high: float
    seeds: int
    p: float
    p_holm: float

    @classmethod
    def of(cls, pool: str, values: Sequence[float], others: Sequence[float]) -> "PairedDifference":
        """Return the comparison of ``values`` with ``others``, those of ``pool``, by itself.

        Where all are the same in pairs, p is 1, although the test's statistic is 0 / 0.
        """
        pairs = list(zip(values, others, strict=True))
        if all(value == other for value, other in pairs):
            return cls(pool, mean=0.0, low=0.0, high=0.0, seeds=len(pairs), p=1.0, p_holm=1.0)
        test = stats.ttest_rel(values, others)
        interval = test.confidence_interval(CONFIDENCE)
        return cls(
            pool=pool,
            mean=statistics.fmean(value - other for value, other in pairs),
            low=float(interval.low),
            high=float(interval.high),
            seeds=len(pairs),
            p=float(test.pvalue),
            p_holm=float(test.pvalue),
        )


def holm(p_values: Sequence[float], family: int) -> list[float]:
    """Return ``p_values`` such that at a level α one or more false ones come up α of the time at
    most.

    Args:
        p_values: of comparisons.
        family: how many comparisons there are, those that are still to be made among them; their p
            count as larger than all others, which errs on the safe side.

    S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scand. J. Statistics, 1979.

    Example:
        >>> holm([0.01, 0.5, 0.02], family=3)
        [0.03, 0.5, 0.04]
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (family - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def compare(
    values: Mapping[str, Mapping[int, float]], pool: str, others: Sequence[str]
) -> list[PairedDifference]:
    """Return the differences of ``pool`` to each of ``others``, over the seeds that both have.

    Args:
        values: by pooling and seed.
        pool, others: of ``values``. Those of ``others`` with which ``pool`` has fewer than two
            seeds in common are left out, but count for Holm's correction.
    """
    differences = []
    for other in others:
        seeds = sorted(values[pool].keys() & values.get(other, {}).keys())
        if len(seeds) >= 2:
            of_pool, of_other = (
                [by_seed[seed] for seed in seeds] for by_seed in (values[pool], values[other])
            )
            differences.append(PairedDifference.of(other, of_pool, of_other))
    adjusted = holm([difference.p for difference in differences], family=len(others))
    return [
        replace(difference, p_holm=p) for difference, p in zip(differences, adjusted, strict=True)
    ]
