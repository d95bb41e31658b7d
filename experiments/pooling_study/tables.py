"""The study's tables, of one plan and the other."""

from collections.abc import Iterator, Sequence

from experiments.comparison import PairedDifference
from experiments.pooling_study.answers import (
    BESIDE,
    CELLS,
    LARGER_CELLS,
    TITLES_OF_CELLS,
    differences,
    errors_in,
    mean_errors,
)
from experiments.pooling_study.costs import CostRow
from experiments.pooling_study.networks import NETWORKS
from experiments.pooling_study.plan import COMPARED, SEEDS, SEEDS_OF_THE_QUESTION
from experiments.pooling_study.poolings import POOLINGS
from experiments.pooling_study.rows import RunRow
from experiments.pooling_study.wording import span, with_interval
from experiments.tables import spread, table

DIFFERENCE = "guided less this one, mean of the pairs"
NOTHING = "No seed has been run in every pair yet."


def study_table(runs: Sequence[RunRow], costs: Sequence[CostRow]) -> str:
    """Return errors, differences and costs of each pooling that a seed of all pairs has.

    Where there is none, a sentence that says so.
    """
    titles = (TITLES_OF_CELLS[cell] for cell in CELLS)
    columns = ("pooling", *titles, "seeds", DIFFERENCE, "p, Holm", "parameters", "step")
    rows = [
        (
            *cells,
            _p_cell(difference),
            _parameters(runs, pooling),
            _relative_cost(costs, pooling),
        )
        for pooling, cells, difference in _lines(runs, CELLS)
    ]
    return table(columns, rows) if rows else NOTHING


def larger_table(runs: Sequence[RunRow]) -> str:
    """Return the same of the larger networks, but tests and the time of a step."""
    titles = (TITLES_OF_CELLS[cell] for cell in LARGER_CELLS)
    columns = ("pooling", *titles, "seeds", DIFFERENCE, "parameters")
    rows = [
        (*cells, _parameters(runs, pooling)) for pooling, cells, _ in _lines(runs, LARGER_CELLS)
    ]
    return table(columns, rows) if rows else NOTHING


def _lines(
    runs: Sequence[RunRow], cells: Sequence[tuple[str, str]]
) -> Iterator[tuple[str, list[str], PairedDifference | None]]:
    """Yield each pooling that a seed of all ``cells`` has: its name, what its line begins with, and
    the comparison with it."""
    means = mean_errors(runs, cells)
    compared = {
        each.pool: each for family in (COMPARED, BESIDE) for each in differences(means, family)
    }
    by_cell = [errors_in(runs, cell) for cell in cells]
    for pooling, by_seed in means.items():
        errors = (spread([cell[pooling][seed] for seed in by_seed], 2) for cell in by_cell)
        difference = compared.get(pooling)
        begins = [POOLINGS[pooling].title, *errors, str(len(by_seed))]
        yield pooling, [*begins, difference_cell(difference, len(by_seed))], difference


def difference_cell(difference: PairedDifference | None, seeds: int) -> str:
    """Return it with its interval, and of how many seeds it is if not of the line's ``seeds``."""
    if difference is None:
        return ""
    of_others = f"; {difference.seeds} seeds" if difference.seeds != seeds else ""
    return with_interval(difference, of_others)


def _p_cell(difference: PairedDifference | None) -> str:
    """Return p once there are all planned seeds: who looks before may stop where it pleases."""
    if difference is None:
        return ""
    planned = SEEDS_OF_THE_QUESTION if difference.pool in COMPARED else SEEDS
    return f"{difference.p_holm:.2g}" if difference.seeds == len(planned) else ""


def _parameters(runs: Sequence[RunRow], pooling: str) -> str:
    of_network = {run.network: run.parameters for run in runs if run.pooling == pooling}
    return " / ".join(f"{of_network[each]:,}" for each in NETWORKS if each in of_network)


def _relative_cost(costs: Sequence[CostRow], pooling: str) -> str:
    """Return the time of a step over that under max pooling, least and most of the four pairs."""
    of_max = {(row.task, row.network): row.milliseconds for row in costs if row.pooling == "max"}
    ratios = [
        row.milliseconds / of_max[row.task, row.network] for row in costs if row.pooling == pooling
    ]
    return span(ratios) if ratios else ""
