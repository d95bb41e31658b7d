"""The study's one table."""

import statistics
from collections.abc import Sequence

from experiments.comparison import PairedDifference
from experiments.pooling_study.answers import (
    BESIDE,
    CELLS,
    differences,
    errors_in,
    mean_errors,
)
from experiments.pooling_study.costs import CostRow
from experiments.pooling_study.plan import COMPARED
from experiments.pooling_study.poolings import POOLINGS
from experiments.pooling_study.rows import RunRow
from experiments.tables import spread, table

COLUMNS = (
    "pooling",
    "Fashion-MNIST, small CNN",
    "Fashion-MNIST, ResNet-18",
    "canvas, small CNN",
    "canvas, ResNet-18",
    "seeds",
    "guided less this one, mean of the four",
    "p, Holm",
    "parameters",
    "step",
)


def study_table(runs: Sequence[RunRow], costs: Sequence[CostRow]) -> str:
    """Return errors, differences and costs of each pooling that a seed of all pairs has.

    Where there is none, a sentence that says so.
    """
    means = mean_errors(runs)
    compared = {
        each.pool: each for family in (COMPARED, BESIDE) for each in differences(means, family)
    }
    by_cell = [errors_in(runs, cell) for cell in CELLS]
    rows = [
        (
            POOLINGS[pooling].title,
            *(spread([cell[pooling][seed] for seed in by_seed], 2) for cell in by_cell),
            str(len(by_seed)),
            *_difference_cells(compared.get(pooling)),
            _parameters(runs, pooling),
            _relative_cost(costs, pooling),
        )
        for pooling, by_seed in means.items()
    ]
    return table(COLUMNS, rows) if rows else "No seed has been run in all four pairs yet."


def _difference_cells(difference: PairedDifference | None) -> tuple[str, str]:
    if difference is None:
        return "", ""
    interval = f"{difference.low:+.2f} to {difference.high:+.2f}"
    return f"{difference.mean:+.2f} ({interval})", f"{difference.p_holm:.2g}"


def _parameters(runs: Sequence[RunRow], pooling: str) -> str:
    of_network = {run.network: run.parameters for run in runs if run.pooling == pooling}
    return ", ".join(f"{of_network[network]:,}" for network in ("small_cnn", "resnet18"))


def _relative_cost(costs: Sequence[CostRow], pooling: str) -> str:
    """Return the time of a step over that under max pooling, geometric mean of the four pairs."""
    of_max = {(row.task, row.network): row.milliseconds for row in costs if row.pooling == "max"}
    ratios = [
        row.milliseconds / of_max[row.task, row.network] for row in costs if row.pooling == pooling
    ]
    return f"{statistics.geometric_mean(ratios):.2f}" if ratios else ""
