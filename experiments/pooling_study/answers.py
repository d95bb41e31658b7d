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
    "skip": "strided convolutions",
    "mixed": "mixed pooling",
    "gem": "generalised-mean pooling",
    "soft": "SoftPool",
    "max_ent_unguided": "Max-Ent pooling with a λ per channel",
    "max_ent_softplus": "guided pooling with softplus",
    "max_ent_no_decay": "guided pooling whose head does not decay",
    "max_ent_softplus_no_decay": "guided pooling with softplus whose head does not decay",
    "gauss": "guided Gaussian pooling",
}
"""What the others are called in a sentence."""


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
    seeds = min(each.seeds for each in found)
    whole = seeds == len(SEEDS_OF_THE_QUESTION)
    if whole:
        sizes = _sizes(found)
        said = _verdict(found, {pool: f"{NAMES[pool]} ({size})" for pool, size in sizes.items()})
    else:
        sizes = [f"{size} from {NAMES[pool]}" for pool, size in _sizes(found).items()]
        said = f"differs by {listed(sizes)}"
    return (
        f"Averaged over two small networks, two tasks and {seeds} seeds, guided Max-Ent pooling "
        f"{said}.{_what_is_left(runs, whole)}"
    )


def answer_beside(runs: Sequence[RunRow]) -> str:
    """Return which of the other poolings guided pooling differs from, once all runs are there."""
    found = differences(mean_errors(runs), BESIDE)
    if [each.seeds for each in found] != [len(SEEDS)] * len(BESIDE):
        return f"Of the {len(BESIDE)} others not all seeds are there yet."
    return f"Against the {len(BESIDE)} others guided Max-Ent pooling {_verdict(found, NAMES)}."


def _verdict(found: Sequence[PairedDifference], names: Mapping[str, str]) -> str:
    lower = [each for each in found if each.p_holm < SIGNIFICANT and each.mean < 0]
    higher = [each for each in found if each.p_holm < SIGNIFICANT and each.mean > 0]
    rest = [each for each in found if each not in lower + higher]
    said = [
        f"{verdict} {listed([names[each.pool] for each in those])}"
        for verdict, those in (
            ("makes significantly fewer errors than", lower),
            ("makes significantly more errors than", higher),
            ("does not differ significantly from", rest),
        )
        if those
    ]
    unsettled = "max_ent_constant" in {each.pool for each in rest}
    so_that = ", so whether the guidance adds anything remains open" if unsettled else ""
    return f"{'; it '.join(said)}{so_that} (5%, Holm's correction for {len(found)})"


def _sizes(found: Sequence[PairedDifference]) -> dict[str, str]:
    """Return the differences with their intervals by pooling; the first one says what they are."""
    sizes = {}
    for each in found:
        unit, name = (" points of top-1 error", "95% interval ") if not sizes else ("", "")
        interval = f"{name}{points(each.low, '+')} to {points(each.high, '+')}"
        sizes[each.pool] = f"{points(each.mean, '+')}{unit}, {interval}"
    return sizes


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
