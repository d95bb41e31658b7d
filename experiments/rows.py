"""The raw results of an experiment, as CSV files of dataclasses."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from training.atomic_write import atomic_write
from training.errors import UserError


@dataclass(frozen=True)
class Row:
    """One run: a network trained under a pooling and a seed, and evaluated after its last epoch.

    Attributes:
        pool, seed, arch: as the options of ``train_imagenet.py``.
        top1_error, top5_error: of the evaluation, in percent.
        loss: of the evaluation, the mean cross-entropy.
        eval_images: number of images of the evaluation.
        parameters: of the network.
        epochs, batch_size, lr: as the options.
        train_images: seen in training, over all epochs.
        seconds: wall-clock time of the training command, with its start and its own validation.
        commit: of the repository, and ``dirty`` whether its files differed from it.
        torch, torchvision, numba, python: versions.
        backend: of ``gfgp_cupy``.
        device: name of the processor or the GPU.
        threads: of PyTorch on the CPU.
        started: UTC, ISO 8601.
    """

    pool: str
    seed: int
    arch: str
    top1_error: float
    top5_error: float
    loss: float
    eval_images: int
    parameters: int
    epochs: int
    batch_size: int
    lr: float
    train_images: int
    seconds: float
    commit: str
    dirty: str
    torch: str
    torchvision: str
    numba: str
    python: str
    backend: str
    device: str
    threads: int
    started: str

    @property
    def recipe(self) -> tuple[object, ...]:
        """What ``Recipe.columns`` says of it."""
        return self.arch, self.epochs, self.batch_size, self.lr, self.train_images


AnyRow = TypeVar("AnyRow")


def write_rows(rows: Sequence[Any], path: Path) -> None:
    """Write one or more ``rows``, dataclasses of one type, to the CSV file ``path``.

    Raises:
        UserError: the file cannot be written.
    """
    columns = [field.name for field in fields(rows[0])]
    with atomic_write(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def read_rows(kind: type[AnyRow], path: Path) -> list[AnyRow]:
    """Return the rows of the dataclass ``kind`` that ``write_rows`` wrote.

    Raises:
        UserError: there is no such file, or it is not one.
    """
    try:
        with open(path, newline="") as file:
            return [
                kind(**{field.name: field.type(columns[field.name]) for field in fields(kind)})
                for columns in csv.DictReader(file)
            ]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: holds no rows of {kind.__name__} ({error!r})") from error
