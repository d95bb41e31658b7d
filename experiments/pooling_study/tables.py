"""The study's table, of one or the other plan."""

import statistics
from collections.abc import Sequence

from experiments.comparison import PairedDifference
from experiments.pooling_study.answers import (
    BESIDE,
    CELLS,
    TITLES_OF_CELLS,
    differences,
    errors_in,
    mean_errors,
)
from experiments.pooling_study.costs import CostRow
from experiments.pooling_study.plan import COMPARED
from experiments.pooling_study.poolings import POOLINGS
from experiments.pooling_study.rows import RunRow
from experiments.tables import spread, table


def study_table(
    runs: Sequence[RunRow],
    costs: Sequence[CostRow],
    cells: Sequence[tuple[str, str]] = CELLS,
) -> str:
    """Return errors, differences and costs of each pooling that a seed of all ``cells`` has.

    Where there is none, a sentence that says so. Where no cost is known, there is no column of it.
    """
    columns = (
        *("pooling", *(TITLES_OF_CELLS[cell] for cell in cells), "seeds"),
        *("guided less this one, mean of the pairs", "p, Holm", "parameters"),
        *(["step"] if costs else []),
    )
    means = mean_errors(runs, cells)
    compared = {
        each.pool: each for family in (COMPARED, BESIDE) for each in differences(means, family)
    }
    by_cell = [errors_in(runs, cell) for cell in cells]
    rows = [
        (
            POOLINGS[pooling].title,
            *(spread([cell[pooling][seed] for seed in by_seed], 2) for cell in by_cell),
            str(len(by_seed)),
            *_difference_cells(compared.get(pooling)),
            _parameters(runs, pooling, cells),
            *([_relative_cost(costs, pooling)] if costs else []),
        )
        for pooling, by_seed in means.items()
    ]
    return table(columns, rows) if rows else "No seed has been run in every pair yet."


def _difference_cells(difference: PairedDifference | None) -> tuple[str, str]:
    if difference is None:
        return "", ""
    interval = f"{difference.low:+.2f} to {difference.high:+.2f}"
    return f"{difference.mean:+.2f} ({interval})", f"{difference.p_holm:.2g}"


def _parameters(runs: Sequence[RunRow], pooling: str, cells: Sequence[tuple[str, str]]) -> str:
    of_network = {run.network: run.parameters for run in runs if run.pooling == pooling}
    networks = dict.fromkeys(network for _, network in cells)
    return ", ".join(f"{of_network[network]:,}" for network in networks)


def _relative_cost(costs: Sequence[CostRow], pooling: str) -> str:
    """Return the time of a step over that under max pooling, geometric mean of the four pairs."""
    of_max = {(row.task, row.network): row.milliseconds for row in costs if row.pooling == "max"}
    ratios = [
        row.milliseconds / of_max[row.task, row.network] for row in costs if row.pooling == pooling
    ]
    return f"{statistics.geometric_mean(ratios):.2f}" if ratios else ""
