"""What happened in the course of training: how far it went, how long it took, what λ became."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from experiments.comparison import PairedDifference
from experiments.pooling_study.answers import CELLS, TITLES_OF_CELLS
from experiments.pooling_study.pilot import PilotRow
from experiments.pooling_study.plan import GUIDED, RECIPES, plan_of
from experiments.pooling_study.rows import EpochRow, LambdaRow, RunRow
from experiments.pooling_study.wording import listed, points, span, with_interval

EVALUATED = ("max", "avg", GUIDED)
"""Poolings of the question whose evaluation is right before the last epochs, too: see
``ConstantHeadPool2d``."""

SMALL = 0.1
"""Points that an epoch is to gain less than where training is long enough."""


def convergence(pilot: Sequence[PilotRow], epochs: Sequence[EpochRow]) -> str:
    """Return a line a pair with what the last epoch changed, in the pilot and in the study's own
    runs, and where it gained too much."""
    lines, of_pilot, of_runs = [], {}, {}
    for cell in CELLS:
        title = TITLES_OF_CELLS[cell]
        errors = [row.held_out_error for row in pilot if (row.task, row.network) == cell]
        if len(errors) < 2:
            return "The pilot has not been run in every pair yet."
        of_pilot[title] = errors[-1] - errors[-2]
        changes = changes_in_the_last_epoch(epochs, cell, RECIPES["study"][cell].epochs)
        if changes is None:
            return "Not every pair has two seeds of these poolings yet."
        of_runs[title] = changes.mean.mean
        lines.append(f"- {title}: pilot {points(of_pilot[title], '+')}; {in_words(changes)}")
    return "\n".join(
        [
            *lines,
            "",
            f"By more than {SMALL} points the error still fell, by the pilot, in "
            f"{_those_that_fell(of_pilot)}; by the mean of the three poolings, in "
            f"{_those_that_fell(of_runs)}.",
        ]
    )


@dataclass(frozen=True)
class LastEpoch:
    """By how much it changed the error, over the seeds that all of ``EVALUATED`` have.

    Attributes:
        of_poolings: means over the seeds, of each pooling.
        mean: over the poolings, seed by seed.
    """

    of_poolings: list[float]
    mean: PairedDifference


def changes_in_the_last_epoch(
    epochs: Sequence[EpochRow], cell: tuple[str, str], last: int
) -> LastEpoch | None:
    """Return what the ``last`` epoch of a pair of task and network changed; None of fewer than two
    seeds."""
    errors = {
        (row.pooling, row.seed, row.done): row.test_error
        for row in epochs
        if (row.task, row.network) == cell
    }
    seeds = [
        seed
        for seed in sorted({seed for _, seed, _ in errors})
        if all((pooling, seed, last) in errors for pooling in EVALUATED)
    ]
    if len(seeds) < 2:
        return None
    before, after = (
        [[errors[pooling, seed, done] for pooling in EVALUATED] for seed in seeds]
        for done in (last - 1, last)
    )
    return LastEpoch(
        of_poolings=[
            fmean(late) - fmean(early)
            for late, early in zip(zip(*after, strict=True), zip(*before, strict=True), strict=True)
        ],
        mean=PairedDifference.of(
            "the epoch before", [fmean(each) for each in after], [fmean(each) for each in before]
        ),
    )


def in_words(changes: LastEpoch) -> str:
    """Return what ``changes_in_the_last_epoch`` has found."""
    of_each = zip(("max", "average", "guided"), changes.of_poolings, strict=True)
    parts = [f"{name} {points(change, '+')}" for name, change in of_each]
    return f"{', '.join(parts)}; mean {with_interval(changes.mean)}"


def _those_that_fell(changes: Mapping[str, float]) -> str:
    fell = [f"*{title}*" for title, change in changes.items() if change < -SMALL]
    return listed(fell) if fell else "no pair"


def hours(runs: Sequence[RunRow], name: str) -> str:
    """Return how many of the plan ``name`` have been made, and how long they took."""
    planned = len(plan_of(name))
    if not runs:
        return f"None of the {planned} planned runs has been made yet."
    return (
        f"{len(runs)} of the {planned} planned runs are in the file; their training took "
        f"{sum(run.seconds for run in runs) / 3600:.0f} hours, added up, each on one core beside "
        "another (by the clock, with pauses of the machine)."
    )


def what_is_learned(lambdas: Sequence[LambdaRow]) -> str:
    """Return λ before training and after it, and what it makes of the outputs then.

    Only of seeds that every pair has.
    """
    return " ".join(
        (
            _learned_by(GUIDED, "With guidance", "single images and channels", lambdas),
            _learned_by("max_ent_constant", "Without", "single channels", lambdas),
        )
    )


def _learned_by(pooling: str, subject: str, single: str, lambdas: Sequence[LambdaRow]) -> str:
    of_pooling = [row for row in lambdas if row.pooling == pooling]
    last = [row for row in of_pooling if row.done == RECIPES["study"][row.task, row.network].epochs]
    seeds = ({row.seed for row in last if (row.task, row.network) == cell} for cell in CELLS)
    common = set.intersection(*seeds)
    last = [row for row in last if row.seed in common]
    if not last:
        return f"{subject} no seed has been run in every pair yet."
    at_first = ""
    if pooling == GUIDED:  # of the other an evaluation then tells nothing: ``ConstantHeadPool2d``
        first = [row for row in of_pooling if row.done == 0 and row.seed in common]
        at_first = f"{span(_means(first))} before the first epoch and "
    positions = [100 * fmean(row.position for row in rows) for rows in _layers(last)]
    least, most = min(row.least for row in last), max(row.most for row in last)
    return (
        f"{subject}, λ is {at_first}{span(_means(last))} after the last on average, by layer, and "
        f"then {span([least, most])} for {single}; the outputs are {span(positions, digits=0)}% "
        "of the way from average to max pooling."
    )


def _means(lambdas: Sequence[LambdaRow]) -> list[float]:
    """Return λ's mean in each layer of each pair of task and network."""
    return [fmean(row.mean for row in rows) for rows in _layers(lambdas)]


def _layers(lambdas: Sequence[LambdaRow]) -> list[list[LambdaRow]]:
    """Return the rows of each layer of each pair of task and network."""
    layers: dict[tuple[str, str, int], list[LambdaRow]] = {}
    for row in lambdas:
        layers.setdefault((row.task, row.network, row.layer), []).append(row)
    return list(layers.values())
