"""What becomes of the question's differences where training is longer: see ``plan``."""

from collections.abc import Mapping, Sequence

from experiments.comparison import PairedDifference
from experiments.pooling_study.answers import (
    NAMES,
    TITLES_OF_CELLS,
    differences,
    errors_in,
    mean_errors,
)
from experiments.pooling_study.course import changes_in_the_last_epoch, in_words
from experiments.pooling_study.plan import COMPARED, GUIDED, RECIPES, plan_of
from experiments.pooling_study.poolings import POOLINGS
from experiments.pooling_study.rows import EpochRow, RunRow
from experiments.pooling_study.tables import difference_cell
from experiments.pooling_study.wording import listed, with_interval
from experiments.tables import spread, table

LONGER_CELLS = tuple(RECIPES["longer"])


def longer_tables(study: Sequence[RunRow], longer: Sequence[RunRow]) -> str:
    """Return a table a pair of task and network, each below the pair's title."""
    return "\n\n".join(
        f"*{TITLES_OF_CELLS[cell]}*:\n\n{_table_of(cell, study, longer)}" for cell in LONGER_CELLS
    )


def longer_course(longer: Sequence[RunRow], epochs: Sequence[EpochRow]) -> str:
    """Return a line a pair with what its longer runs say once all are there, and what their last
    epoch changed."""
    lines = []
    for cell in LONGER_CELLS:
        last, parts = RECIPES["longer"][cell].epochs, []
        if _is_whole(cell, longer):
            verdict = _verdict(differences(errors_in(longer, cell), COMPARED))
            parts.append(f"after {last} epochs the 95% interval of the difference {verdict}")
        changes = changes_in_the_last_epoch(epochs, cell, last)
        if changes is not None:
            parts.append(f"the last epoch changed the error by: {in_words(changes)}")
        said = "; ".join(parts) or "there are no two seeds of each pooling yet"
        lines.append(f"- {TITLES_OF_CELLS[cell]}: {said}")
    return "\n".join(lines)


def with_longer_training(study: Sequence[RunRow], longer: Sequence[RunRow]) -> str:
    """Return the question's differences with the longer runs in place of the study's own in those
    pairs where all are there."""
    whole = [cell for cell in LONGER_CELLS if _is_whole(cell, longer)]
    runs = [run for run in study if (run.task, run.network) not in whole]
    runs += [run for run in longer if (run.task, run.network) in whole]
    found = differences(mean_errors(runs), COMPARED)
    if not whole or len(found) < len(COMPARED):
        return "No pair has all its longer runs yet."
    sizes = [f"{with_interval(each)} from {NAMES[each.pool]}" for each in found]
    return (
        "With these runs in place of the study's own in "
        f"{listed([f'*{TITLES_OF_CELLS[cell]}*' for cell in whole])}, guided Max-Ent pooling "
        f"differs, averaged over the four pairs, by {listed(sizes)}."
    )


Errors = Mapping[str, Mapping[int, float]]


def _is_whole(cell: tuple[str, str], longer: Sequence[RunRow]) -> bool:
    """Whether all planned runs of a pair are there."""
    planned = {run.key for run in plan_of("longer") if (run.task, run.network) == cell}
    return planned <= {run.key for run in longer}


def _table_of(cell: tuple[str, str], study: Sequence[RunRow], longer: Sequence[RunRow]) -> str:
    """Return errors and differences after the study's epochs and after more, of the seeds that
    both have, and by how much the differences have changed."""
    both = {run.key for run in study} & {run.key for run in longer}
    short, long = (
        errors_in([run for run in runs if run.key in both], cell) for runs in (study, longer)
    )
    compared = [
        {each.pool: each for each in found}
        for found in (
            differences(short, COMPARED),
            differences(long, COMPARED),
            _changes(short, long),
        )
    ]
    rows = []
    for pooling in (*COMPARED, GUIDED):
        if pooling in long:
            seeds = len(long[pooling])
            errors = (spread([*of[pooling].values()], 2) for of in (short, long))
            found = (difference_cell(each.get(pooling), seeds) for each in compared)
            rows.append((POOLINGS[pooling].title, str(seeds), *errors, *found))
    epochs = [f"{RECIPES[plan][cell].epochs} epochs" for plan in ("study", "longer")]
    differences_of = (f"guided less this one, {each}" for each in epochs)
    columns = ("pooling", "seeds", *epochs, *differences_of, "change of it")
    return table(columns, rows) if rows else "No seed has been run yet."


def _changes(short: Errors, long: Errors) -> list[PairedDifference]:
    """Return by how much guided pooling's differences have changed."""
    changes = []
    for other in COMPARED:
        seeds = long.get(GUIDED, {}).keys() & long.get(other, {}).keys()
        before, after = (
            [errors[GUIDED][seed] - errors[other][seed] for seed in sorted(seeds)]
            for errors in (short, long)
        )
        if len(seeds) >= 2:
            changes.append(PairedDifference.of(other, after, before))
    return changes


def _verdict(found: Sequence[PairedDifference]) -> str:
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
