"""What becomes of the question's differences where training is longer: see ``plan``."""

from collections.abc import Sequence
from statistics import fmean

from experiments.pooling_study.answers import differences, errors_in
from experiments.pooling_study.course import EVALUATED, changes_in_the_last_epoch
from experiments.pooling_study.plan import COMPARED, GUIDED, RECIPES, plan_of
from experiments.pooling_study.poolings import POOLINGS
from experiments.pooling_study.rows import EpochRow, RunRow
from experiments.pooling_study.tables import difference_cell
from experiments.pooling_study.wording import listed, points
from experiments.tables import spread, table

((CELL, RECIPE),) = RECIPES["longer"].items()
SHORT, LONG = RECIPES["study"][CELL].epochs, RECIPE.epochs


def longer_table(study: Sequence[RunRow], longer: Sequence[RunRow]) -> str:
    """Return errors and differences after the study's epochs, and after more, of the same seeds."""
    long = errors_in(longer, CELL)
    short = {
        pooling: {seed: errors[seed] for seed in long[pooling]}
        for pooling, errors in errors_in(study, CELL).items()
        if pooling in long
    }
    both = (short, long)
    compared = [{each.pool: each for each in differences(errors, COMPARED)} for errors in both]
    rows = []
    for pooling in (*COMPARED, GUIDED):
        if pooling in long:
            seeds = len(long[pooling])
            errors = (spread([*of_pooling[pooling].values()], 2) for of_pooling in both)
            found = (difference_cell(each.get(pooling), seeds) for each in compared)
            rows.append((POOLINGS[pooling].title, str(seeds), *errors, *found))
    columns = (
        "pooling",
        "seeds",
        *(f"{epochs} epochs" for epochs in (SHORT, LONG)),
        *(f"guided less this one, {epochs} epochs" for epochs in (SHORT, LONG)),
    )
    return table(columns, rows) if rows else "No run has been made yet."


def longer_course(longer: Sequence[RunRow], epochs: Sequence[EpochRow]) -> str:
    """Return how many of the longer runs are there, and what their last epoch gained."""
    made = f"{len(longer)} of the {len(plan_of('longer'))} runs have been made."
    changes = changes_in_the_last_epoch(epochs, CELL, LONG)
    if not changes.keys() >= set(EVALUATED):
        return made
    means = listed([points(fmean(changes[pooling]), "+") for pooling in EVALUATED])
    return (
        f"{made} In their last epoch the error on 2,000 test images changed by {means} points "
        "under max, average and guided Max-Ent pooling, mean over the seeds."
    )
