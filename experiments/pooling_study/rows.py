"""The results of the study, as CSV files of these rows in one folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.pooling_study.plan import PlannedRun
from experiments.pooling_study.training import Recipe
from experiments.rows import read_rows, write_rows
from training.errors import UserError


@dataclass(frozen=True)
class OfRun:
    """The run that a row is of: see ``plan.PlannedRun``."""

    task: str
    network: str
    pooling: str
    seed: int

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.task, self.network, self.pooling, self.seed


@dataclass(frozen=True)
class RunRow(OfRun):
    """A finished run.

    Attributes:
        top1_error: on all test images after the last epoch, in percent.
        loss: likewise, the mean cross-entropy.
        parameters: of the network.
        width, epochs, batch_size, lr: of the recipe.
        seconds: wall-clock time of the training epochs, beside other runs and with what time the
            process was suspended; ``costs.csv`` is what compares poolings.
        commit: of the repository when it was begun, and ``dirty`` whether its files differed.
        torch, numba, python: versions.
        backend: of ``gfgp_cupy``.
        device: name of the processor or the GPU.
        started: UTC, ISO 8601.
    """

    top1_error: float
    loss: float
    parameters: int
    width: int
    epochs: int
    batch_size: int
    lr: float
    seconds: float
    commit: str
    dirty: str
    torch: str
    numba: str
    python: str
    backend: str
    device: str
    started: str

    @property
    def recipe(self) -> Recipe:
        return Recipe(self.width, self.epochs, self.batch_size, self.lr)


@dataclass(frozen=True)
class EpochRow(OfRun):
    """A run after so many epochs.

    Attributes:
        done: epochs so far, this one among them.
        train_loss, train_error: means over the epoch, of the images as they were seen.
        test_error: in percent, on 2,000 of the test images. (Of ``max_ent_constant`` see
            ``ConstantHeadPool2d``: before the last epochs it is that of another λ.)
    """

    done: int
    train_loss: float
    train_error: float
    test_error: float


@dataclass(frozen=True)
class LambdaRow(OfRun):
    """What a pooling layer pools with after so many epochs, on 500 of the test images.

    Of ``skip``, ``max``, ``avg`` and ``soft`` there are no rows. For the generalised mean's p,
    mixed pooling's proportion and Gaussian pooling's w read λ likewise.

    Attributes:
        done: epochs so far; 0 before the first.
        layer: which of the network's poolings, from 1 on in the order in which an image passes.
        mean, least, most: of λ over images and channels.
        between_channels: standard deviation over the channels of λ's mean over the images.
        between_images: standard deviation over the images of a channel's λ, root mean square over
            the channels.
        position: of the outputs between average (0) and max pooling (1) of the same inputs:
            Σ (output - average) / Σ (max - average).
    """

    done: int
    layer: int
    mean: float
    least: float
    most: float
    between_channels: float
    between_images: float
    position: float


@dataclass(frozen=True)
class ShiftRow(OfRun):
    """A trained network on images that are moved.

    Attributes:
        distance: in pixels, of each image in one of the four directions.
        top1_error: in percent, on 4,000 of the test images.
    """

    distance: int
    top1_error: float


@dataclass(frozen=True)
class ExampleRow(OfRun):
    """One of the test images that a layer of a guided pooling has the highest or lowest λ for.

    Attributes:
        layer: as in ``LambdaRow``.
        rank: 0 is the highest λ, -1 the lowest.
        image: its index among the test images.
        lam: its λ, mean over the channels.
    """

    layer: int
    rank: int
    image: int
    lam: float


@dataclass(frozen=True)
class Outcome:
    """All rows of a run."""

    run: RunRow
    epochs: list[EpochRow]
    lambdas: list[LambdaRow]
    shifts: list[ShiftRow]
    examples: list[ExampleRow]


def read_runs(folder: Path) -> list[RunRow]:
    """Return the finished runs in ``folder``, none where there is no such file."""
    path = folder / "runs.csv"
    return read_rows(RunRow, path) if path.exists() else []


def left_of(planned: Sequence[PlannedRun], folder: Path) -> list[PlannedRun]:
    """Return which of the ``planned`` runs ``folder`` has no row of.

    Raises:
        UserError: it has a row of a planned run by another recipe.
    """
    finished = {row.key: row for row in read_runs(folder)}
    for run in planned:
        if run.key in finished and finished[run.key].recipe != run.recipe:
            raise UserError(
                f"--results {folder}: has a run {run.key} by {finished[run.key].recipe}, and the "
                f"plan is {run.recipe}; choose another folder"
            )
    return [run for run in planned if run.key not in finished]


def add_outcome(outcome: Outcome, folder: Path) -> None:
    """Add the rows of a run to the files in ``folder``, the one that says it is finished last.

    Rows that an interrupted call left of the same run are replaced.
    """
    for name, kind, rows in (
        ("epochs", EpochRow, outcome.epochs),
        ("lambdas", LambdaRow, outcome.lambdas),
        ("shifts", ShiftRow, outcome.shifts),
        ("examples", ExampleRow, outcome.examples),
        ("runs", RunRow, [outcome.run]),
    ):
        path = folder / f"{name}.csv"
        before = read_rows(kind, path) if path.exists() else []
        kept = [row for row in before if row.key != outcome.run.key]
        if rows:
            write_rows([*kept, *rows], path)
