"""What becomes of the question's differences where training is longer: see ``plan``."""

from collections.abc import Mapping, Sequence

from experiments.comparison import PairedDifference
from experiments.pooling_study.answers import NAMES, differences, errors_in
from experiments.pooling_study.course import changes_in_the_last_epoch, in_words
from experiments.pooling_study.plan import COMPARED, GUIDED, RECIPES, plan_of
from experiments.pooling_study.poolings import POOLINGS
from experiments.pooling_study.rows import EpochRow, RunRow
from experiments.pooling_study.tables import difference_cell
from experiments.pooling_study.wording import listed
from experiments.tables import spread, table

((CELL, RECIPE),) = RECIPES["longer"].items()
SHORT, LONG = RECIPES["study"][CELL].epochs, RECIPE.epochs


def longer_table(study: Sequence[RunRow], longer: Sequence[RunRow]) -> str:
    """Return errors and differences after the study's epochs and after more, of the seeds that
    both have, and by how much the differences have changed."""
    short, long = _errors_of_both(study, longer), _errors_of_both(longer, study)
    changes = _changes(short, long)
    compared = [
        {each.pool: each for each in differences(errors, COMPARED)} for errors in (short, long)
    ]
    rows = []
    for pooling in (*COMPARED, GUIDED):
        if pooling in long:
            seeds = len(long[pooling])
            errors = (spread([*of[pooling].values()], 2) for of in (short, long))
            found = (difference_cell(each.get(pooling), seeds) for each in (*compared, changes))
            rows.append((POOLINGS[pooling].title, str(seeds), *errors, *found))
    columns = (
        "pooling",
        "seeds",
        *(f"{epochs} epochs" for epochs in (SHORT, LONG)),
        *(f"guided less this one, {epochs} epochs" for epochs in (SHORT, LONG)),
        "change of it",
    )
    return table(columns, rows) if rows else "No seed has been run yet."


def longer_course(longer: Sequence[RunRow], epochs: Sequence[EpochRow]) -> str:
    """Return what the longer runs say once all are there, and what their last epoch changed."""
    parts = []
    if len(longer) == len(plan_of("longer")):
        parts.append(f"After {LONG} epochs the 95% interval of the difference {_verdict(longer)}.")
    changes = changes_in_the_last_epoch(epochs, CELL, LONG)
    if changes is not None:
        parts.append(
            f"The last epoch changed the error, as [below](#how), by: {in_words(changes)}."
        )
    return " ".join(parts) or "There are no two seeds of each pooling yet."


Errors = Mapping[str, Mapping[int, float]]


def _errors_of_both(runs: Sequence[RunRow], others: Sequence[RunRow]) -> Errors:
    """Return the errors of those ``runs`` that ``others`` has, too."""
    keys = {run.key for run in others}
    return errors_in([run for run in runs if run.key in keys], CELL)


def _changes(short: Errors, long: Errors) -> dict[str, PairedDifference]:
    """Return by how much guided pooling's differences have changed, by pooling."""
    changes = {}
    for other in COMPARED:
        seeds = long.get(GUIDED, {}).keys() & long.get(other, {}).keys()
        before, after = (
            [errors[GUIDED][seed] - errors[other][seed] for seed in sorted(seeds)]
            for errors in (short, long)
        )
        if len(seeds) >= 2:
            changes[other] = PairedDifference.of(other, after, before)
    return changes


def _verdict(longer: Sequence[RunRow]) -> str:
    found = differences(errors_in(longer, CELL), COMPARED)
    groups = (
        ("is below 0 for", [each for each in found if each.high < 0]),
        ("is above 0 for", [each for each in found if each.low > 0]),
        ("holds 0 for", [each for each in found if each.low <= 0 <= each.high]),
    )
    return "; it ".join(
        f"{verdict} {listed([NAMES[each.pool] for each in those])}"
        for verdict, those in groups
        if those
    )
