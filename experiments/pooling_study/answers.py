"""What the runs say: the comparisons that ``plan`` decided on."""

from collections.abc import Mapping, Sequence

from experiments.comparison import PairedDifference, compare
from experiments.pooling_study.plan import (
    COMPARED,
    GUIDED,
    RECIPES,
    SEEDS,
    SEEDS_OF_THE_QUESTION,
    plan_of,
)
from experiments.pooling_study.poolings import POOLINGS
from experiments.pooling_study.rows import RunRow
from experiments.pooling_study.wording import listed, points

SIGNIFICANT = 0.05
CELLS, LARGER_CELLS = tuple(RECIPES["study"]), tuple(RECIPES["larger"])
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
        f"{points(abs(each.mean))}{' points' if each is found[0] else ''} "
        f"{'below' if each.mean < 0 else 'above'} that of {NAMES[each.pool]} "
        f"({'95% interval ' if each is found[0] else ''}{_interval_of_size(each)})"
        for each in found
    ]
    seeds = min(each.seeds for each in found)
    whole = seeds == len(SEEDS_OF_THE_QUESTION)
    return (
        f"Averaged over two small networks, two tasks and {seeds} seeds, the top-1 error of guided "
        f"Max-Ent pooling is {listed(parts)}{f': {_verdict(found, NAMES)}' if whole else ''}."
        f"{_what_is_left(runs, whole)}"
    )


def answer_beside(runs: Sequence[RunRow]) -> str:
    """Return which of the other poolings guided pooling differs from, once all runs are there."""
    found = differences(mean_errors(runs), BESIDE)
    if [each.seeds for each in found] != [len(SEEDS)] * len(BESIDE):
        return f"Of the {len(BESIDE)} others not all seeds are there yet."
    titles = {pooling: f"*{POOLINGS[pooling].title}*" for pooling in BESIDE}
    return f"Against the {len(BESIDE)} others guided Max-Ent pooling has {_verdict(found, titles)}."


def _verdict(found: Sequence[PairedDifference], names: Mapping[str, str]) -> str:
    lower = [each for each in found if each.p_holm < SIGNIFICANT and each.mean < 0]
    higher = [each for each in found if each.p_holm < SIGNIFICANT and each.mean > 0]
    said = [
        f"{verdict} {listed([names[each.pool] for each in those])}"
        for verdict, those in (
            ("significantly fewer errors than", lower),
            ("significantly more errors than", higher),
            ("no significant difference from", [x for x in found if x not in lower + higher]),
        )
        if those
    ]
    return f"{'; '.join(said)} (5%, Holm's correction for {len(found)})"


def _what_is_made(runs: Sequence[RunRow]) -> str:
    planned = {run.key for run in plan_of("study")}
    made = planned & {run.key for run in runs}
    return f"{len(made)} of {len(planned)} planned runs have been made."


def _what_is_left(runs: Sequence[RunRow], answered: bool) -> str:
    planned, made = {run.key for run in plan_of("study")}, {run.key for run in runs}
    if planned <= made:
        return ""
    if not answered:
        return " **This is not the end of it:** " + _what_is_made(runs)
    beside = {key for key in planned if key[2] in BESIDE}
    return (
        f" **Still to come:** {len(BESIDE)} more poolings to compare it with; "
        f"{len(beside & made)} of their {len(beside)} runs have been made."
    )


def _interval_of_size(found: PairedDifference) -> str:
    """Return the interval of the difference's size, which is below 0 where it may be the other way
    round."""
    ends = (found.low, found.high) if found.mean > 0 else (-found.high, -found.low)
    return f"{points(ends[0])} to {points(ends[1])}"
