"""What the runs say: the comparisons that ``plan`` decided on."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from experiments.comparison import PairedDifference, compare
from experiments.pooling_study.pilot import PilotRow
from experiments.pooling_study.plan import COMPARED, GUIDED, RECIPES, SEEDS_OF_THE_QUESTION, plan_of
from experiments.pooling_study.poolings import POOLINGS
from experiments.pooling_study.rows import LambdaRow, RunRow

SIGNIFICANT = 0.05
CELLS, LARGER_CELLS = tuple(RECIPES["cpu"]), tuple(RECIPES["cuda"])
"""The pairs of task and network, and those of full width."""

TITLES_OF_CELLS = {
    ("fashion", "small_cnn"): "Fashion-MNIST, small CNN",
    ("fashion", "resnet18"): "Fashion-MNIST, ResNet-18",
    ("canvas", "small_cnn"): "canvas, small CNN",
    ("canvas", "resnet18"): "canvas, ResNet-18",
}

BESIDE = tuple(pooling for pooling in POOLINGS if pooling not in (GUIDED, *COMPARED))
NAMES = {
    "max": "max pooling",
    "avg": "average pooling",
    "max_ent_constant": "the same layer whose head sees a constant",
}


def errors_in(runs: Sequence[RunRow], cell: tuple[str, str]) -> dict[str, dict[int, float]]:
    """Return the top-1 errors of a pair of task and network, by pooling and seed."""
    errors: dict[str, dict[int, float]] = {}
    for run in runs:
        if (run.task, run.network) == cell:
            errors.setdefault(run.pooling, {})[run.seed] = run.top1_error
    return errors


def mean_errors(
    runs: Sequence[RunRow], cells: Sequence[tuple[str, str]] = CELLS
) -> dict[str, dict[int, float]]:
    """Return the means over ``cells``, pairs of task and network, by pooling and seed.

    Only seeds that every pair has.
    """
    by_cell = [errors_in(runs, cell) for cell in cells]
    means: dict[str, dict[int, float]] = {}
    for pooling in POOLINGS:
        of_pooling = [errors.get(pooling, {}) for errors in by_cell]
        common = set.intersection(*(set(errors) for errors in of_pooling))
        for seed in sorted(common):
            mean = sum(errors[seed] for errors in of_pooling) / len(cells)
            means.setdefault(pooling, {})[seed] = mean
    return means


def differences(
    errors: Mapping[str, Mapping[int, float]], others: Sequence[str]
) -> list[PairedDifference]:
    """Return guided Max-Ent pooling's errors less those of each of ``others``, with Holm's p."""
    return compare(errors, GUIDED, others) if GUIDED in errors else []


def answer(runs: Sequence[RunRow]) -> str:
    """Return the answer to the question, whichever way it falls, and what is still to be run."""
    found = differences(mean_errors(runs), COMPARED)
    if len(found) < len(COMPARED):
        return "**There is no answer yet:** " + _what_is_made(runs)
    parts = [
        f"{abs(each.mean):.2f} {'lower' if each.mean < 0 else 'higher'} than under "
        f"{NAMES[each.pool]} ({each.low:+.2f} to {each.high:+.2f})"
        for each in found
    ]
    seeds = min(each.seeds for each in found)
    whole = seeds == len(SEEDS_OF_THE_QUESTION)
    return (
        "Averaged over two small networks and two tasks, the top-1 error in percent under guided "
        f"Max-Ent pooling is {_listed(parts)}, with 95% intervals of the differences over {seeds} "
        f"seeds{f': {_verdict(found)}' if whole else ''}.{_what_is_left(runs, whole)}"
    )


def convergence(pilot: Sequence[PilotRow]) -> str:
    """Return what the last epoch of each of the pilot's runs still gained."""
    parts = []
    for cell in CELLS:
        errors = [row.held_out_error for row in pilot if (row.task, row.network) == cell]
        if len(errors) < 2:
            return "The pilot has not been run in every pair yet."
        parts.append(f"from {errors[-2]:.2f} to {errors[-1]:.2f}% ({TITLES_OF_CELLS[cell]})")
    return f"In the last epoch of the pilot the error of the images held out went {_listed(parts)}."


def what_is_learned(lambdas: Sequence[LambdaRow]) -> str:
    """Return λ after the last epoch, and what it makes of the outputs.

    Only of seeds that every pair has.
    """
    return " ".join(
        (
            _learned_by(GUIDED, "With guidance", "single images and channels", lambdas),
            _learned_by("max_ent_constant", "Without", "single channels", lambdas),
        )
    )


def _learned_by(pooling: str, subject: str, single: str, lambdas: Sequence[LambdaRow]) -> str:
    last = [
        row
        for row in lambdas
        if row.pooling == pooling and row.done == RECIPES["cpu"][row.task, row.network].epochs
    ]
    seeds = ({row.seed for row in last if (row.task, row.network) == cell} for cell in CELLS)
    common = set.intersection(*seeds)
    last = [row for row in last if row.seed in common]
    if not last:
        return f"{subject} no seed has been run in every pair yet."
    groups: dict[tuple[str, str, int], list[LambdaRow]] = {}
    for row in last:
        groups.setdefault((row.task, row.network, row.layer), []).append(row)
    means = [fmean(row.mean for row in rows) for rows in groups.values()]
    positions = [fmean(row.position for row in rows) for rows in groups.values()]
    least, most = min(row.least for row in last), max(row.most for row in last)
    return (
        f"{subject}, λ is {min(means):.2f} to {max(means):.2f} on average, by layer, and "
        f"{least:.2f} to {most:.2f} for {single}; the outputs are {100 * min(positions):.0f} to "
        f"{100 * max(positions):.0f}% of the way from average to max pooling."
    )


def _verdict(found: Sequence[PairedDifference]) -> str:
    lower = [each for each in found if each.p_holm < SIGNIFICANT and each.mean < 0]
    higher = [each for each in found if each.p_holm < SIGNIFICANT and each.mean > 0]
    said = [
        f"{verdict} {_listed([NAMES[each.pool] for each in those])}"
        for verdict, those in (
            ("significantly fewer errors than", lower),
            ("significantly more errors than", higher),
            ("no significant difference from", [x for x in found if x not in lower + higher]),
        )
        if those
    ]
    return f"{'; '.join(said)} (5%, Holm's correction for {len(found)})"


def _what_is_made(runs: Sequence[RunRow]) -> str:
    planned = {run.key for run in plan_of("cpu")}
    made = planned & {run.key for run in runs}
    return f"{len(made)} of {len(planned)} planned runs have been made."


def _what_is_left(runs: Sequence[RunRow], answered: bool) -> str:
    planned, made = {run.key for run in plan_of("cpu")}, {run.key for run in runs}
    if planned <= made:
        return ""
    if not answered:
        return " **This is not the end of it:** " + _what_is_made(runs)
    beside = {key for key in planned if key[2] in BESIDE}
    return (
        f" **Still to come:** {len(BESIDE)} more poolings to compare it with; "
        f"{len(beside & made)} of their {len(beside)} runs have been made."
    )


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
