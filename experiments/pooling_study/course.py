"""What happened in the course of training: how far it went, how long it took, what λ became."""

from collections.abc import Sequence
from statistics import fmean

from experiments.pooling_study.answers import CELLS, TITLES_OF_CELLS
from experiments.pooling_study.pilot import PilotRow
from experiments.pooling_study.plan import GUIDED, RECIPES, plan_of
from experiments.pooling_study.rows import EpochRow, LambdaRow, RunRow
from experiments.pooling_study.wording import listed, points, span

EVALUATED = ("max", "avg", GUIDED)
"""Poolings of the question whose evaluation is right at any time."""


def convergence(pilot: Sequence[PilotRow], epochs: Sequence[EpochRow]) -> str:
    """Return what the last epoch still gained, of the pilot's runs and of the study's own."""
    changes = []
    for cell in CELLS:
        errors = [row.held_out_error for row in pilot if (row.task, row.network) == cell]
        if len(errors) < 2:
            return "The pilot has not been run in every pair yet."
        before, last = errors[-2:]
        changes.append(f"from {before:.2f} to {last:.2f}% ({TITLES_OF_CELLS[cell]})")
    return (
        f"In the last epoch of the pilot the error of the images held out went {listed(changes)}."
        f"{_gained_in_the_study(epochs)}"
    )


def _gained_in_the_study(epochs: Sequence[EpochRow]) -> str:
    parts = []
    for cell in CELLS:
        changes = changes_in_the_last_epoch(epochs, cell, RECIPES["study"][cell].epochs)
        if not changes.keys() >= set(EVALUATED):
            return ""
        means = [fmean(changes[pooling]) for pooling in EVALUATED]
        means.append(fmean(change for of_pooling in changes.values() for change in of_pooling))
        parts.append(f"{listed([points(each, '+') for each in means])} ({TITLES_OF_CELLS[cell]})")
    return (
        " In the study's own last epoch the error on 2,000 test images changed by so many points "
        "under max, average and guided Max-Ent pooling, and over all poolings but the head that "
        f"sees a constant, mean over the runs: {'; '.join(parts)}."
    )


def changes_in_the_last_epoch(
    epochs: Sequence[EpochRow], cell: tuple[str, str], last: int
) -> dict[str, list[float]]:
    """Return by how many points the error changed in the ``last`` epoch of a pair of task and
    network, run by run, by pooling.

    Without the head that sees a constant, whose evaluation is not right at any time.
    """
    errors = {
        (row.pooling, row.seed, row.done): row.test_error
        for row in epochs
        if (row.task, row.network) == cell and row.pooling != "max_ent_constant"
    }
    changes: dict[str, list[float]] = {}
    for (pooling, seed, done), error in errors.items():
        if done == last:
            changes.setdefault(pooling, []).append(error - errors[pooling, seed, last - 1])
    return changes


def hours(runs: Sequence[RunRow]) -> str:
    """Return how long the runs took."""
    return (
        f"{len(runs)} of the {len(plan_of('study'))} planned runs are in the file; their training "
        f"took {sum(run.seconds for run in runs) / 3600:.0f} hours, added up, each on one core "
        "beside another."
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
