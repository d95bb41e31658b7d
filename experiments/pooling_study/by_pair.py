"""What each pair of task and network says by itself, which ``plan`` has no tests of."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from experiments.comparison import PairedDifference, compare
from experiments.pooling_study.answers import (
    CELLS,
    TITLES_OF_CELLS,
    differences,
    errors_in,
    mean_errors,
)
from experiments.pooling_study.plan import COMPARED
from experiments.pooling_study.rows import OfRun, RunRow, ShiftRow
from experiments.pooling_study.wording import listed, points, with_interval

NOTHING = "Not every pair has two seeds of all the poolings of the question yet."
WITHOUT_ZERO = "*"
"""Behind a difference whose interval is without 0."""


def by_pair(runs: Sequence[RunRow], shifts: Sequence[ShiftRow]) -> str:
    """Return a line a pair with the question's differences, of images as they are and of moved
    ones, mean over the distances but 0."""
    lines = []
    for cell in CELLS:
        moved = [row for row in shifts if row.distance > 0 and (row.task, row.network) == cell]
        as_they_are = differences(errors_in(runs, cell), COMPARED)
        of_moved = differences(_mean_over_distances(moved), COMPARED)
        if min(len(as_they_are), len(of_moved)) < len(COMPARED):
            return NOTHING
        lines.append(f"- {TITLES_OF_CELLS[cell]}: {_row(as_they_are)}; moved {_row(of_moved)}")
    return "\n".join(lines)


def without_the_largest(runs: Sequence[RunRow]) -> str:
    """Return the question's differences without the pair where they are largest, and what of them
    is there without guidance."""
    by_cell = [differences(errors_in(runs, cell), COMPARED) for cell in CELLS]
    if any(len(found) < len(COMPARED) for found in by_cell):
        return NOTHING
    sums = [sum(abs(each.mean) for each in found) for found in by_cell]
    largest = CELLS[sums.index(max(sums))]
    rest = differences(mean_errors(runs, [cell for cell in CELLS if cell != largest]), COMPARED)
    without_guidance = compare(mean_errors(runs), "max_ent_constant", ["max"])
    if len(rest) < len(COMPARED) or not without_guidance:
        return NOTHING
    (unguided,) = without_guidance
    return (
        f"Largest they are in *{TITLES_OF_CELLS[largest]}*; without it the means of the three are "
        f"{listed([with_interval(each) for each in rest])}. The same layer whose head sees a "
        f"constant is itself at {with_interval(unguided)} against max pooling: so much is there "
        "without guidance."
    )


def _mean_over_distances(shifts: Sequence[ShiftRow]) -> Mapping[str, Mapping[int, float]]:
    errors: dict[OfRun, list[float]] = {}
    for row in shifts:
        run = OfRun(row.task, row.network, row.pooling, row.seed)
        errors.setdefault(run, []).append(row.top1_error)
    means: dict[str, dict[int, float]] = {}
    for run, of_run in errors.items():
        means.setdefault(run.pooling, {})[run.seed] = fmean(of_run)
    return means


def _row(found: Sequence[PairedDifference]) -> str:
    return ", ".join(
        points(each.mean, "+") + (WITHOUT_ZERO if each.low * each.high > 0 else "")
        for each in found
    )
