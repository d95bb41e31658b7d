"""What a network takes each image for, and the tables of it: errors by class, confused pairs."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.atomic_write import atomic_write
from training.processes.ranks import Process, gather_objects

CLASSES_NAME = "evaluation_classes.csv"
CONFUSION_NAME = "confusion.csv"
PAIRS_NAME = "confused_pairs.csv"

MOST_CLASSES = 2000
"""Up to so many classes the confusion matrix is written as a whole, and drawn."""

CLASS_COLUMNS = (
    *("class", "images", "top1_error", "top5_error"),
    *("predicted", "most_confused_with", "confused_images"),
)
PAIR_COLUMNS = ("class", "predicted", "images", "percent")


@dataclass(frozen=True)
class Predictions:
    """What the network takes each of N images for.

    Attributes:
        targets: [N] the true outputs.
        predicted: [N] the outputs of the largest logit.
        among_five: [N] whether the true output is among the five largest.
        names: of the outputs.
    """

    targets: np.ndarray
    predicted: np.ndarray
    among_five: np.ndarray
    names: Sequence[str]

    @property
    def outputs(self) -> list[int]:
        """The outputs that the tables have: those that are of an image, in truth or prediction."""
        return np.union1d(self.targets, self.predicted).tolist()

    @property
    def confused(self) -> list[tuple[int, int, int]]:
        """True output, predicted one and number of images of each mistake, the most first."""
        wrong, outputs = self.targets != self.predicted, len(self.names)
        pairs, counts = np.unique(
            self.targets[wrong] * outputs + self.predicted[wrong], return_counts=True
        )
        found = [
            (*divmod(pair, outputs), count)
            for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True)
        ]
        return sorted(found, key=lambda each: -each[2])

    def matrix(self) -> np.ndarray:
        """Return the confusion matrix [K, K] of ``outputs``: images by true and predicted one."""
        outputs = self.outputs
        places = np.zeros(len(self.names), dtype=np.int64)
        places[outputs] = np.arange(len(outputs))
        matrix = np.zeros((len(outputs), len(outputs)), dtype=np.int64)
        np.add.at(matrix, (places[self.targets], places[self.predicted]), 1)
        return matrix


class PredictionLog:
    """The predictions of a pass over images, on their device: adding to it waits for no device."""

    def __init__(self) -> None:
        self.parts: list[Tensor] = []  # [3, n]: targets, predictions, whether among five

    def add(self, logits: Tensor, targets: Tensor) -> None:
        """Add a batch: its logits [N, outputs] and the true outputs [N]."""
        largest = logits.topk(min(5, logits.shape[1]), dim=1).indices
        among_five = (largest == targets[:, None]).any(dim=1)
        self.parts.append(torch.stack([targets, largest[:, 0], among_five.long()]))

    def of_all(self, process: Process, classes: Sequence[str], outputs: int) -> Predictions:
        """Return the predictions of all processes; every process must call it.

        Args:
            process: this one.
            classes: names of the first outputs.
            outputs: how many there are; those without a name are called by their number.
        """
        empty = torch.empty(3, 0, dtype=torch.long, device=process.device)
        here = torch.cat([empty, *self.parts], dim=1).cpu().numpy()
        targets, predicted, among_five = np.concatenate(gather_objects(here, process), axis=1)
        names = (*classes, *(f"class {number}" for number in range(len(classes), outputs)))
        return Predictions(targets, predicted, among_five.astype(bool), names)


def write_predictions(predictions: Predictions, out_dir: Path) -> None:
    """Write the tables of ``predictions``, in place of earlier ones.

    ``evaluation_classes.csv`` has a row for each class: its number of images, errors in percent,
    how many images were taken for it, what its own were most often mistaken for and how many.
    ``confused_pairs.csv`` has a row for each kind of mistake, the most frequent first, with the
    percentage of the class's images. ``confusion.csv`` is the matrix, a row for each true class
    and a column for each predicted one; beyond ``MOST_CLASSES`` there is none.

    Raises:
        WriteError: a file cannot be written.
    """
    names, outputs = predictions.names, predictions.outputs
    images = np.bincount(predictions.targets, minlength=len(names))
    _write_csv(out_dir / CLASSES_NAME, CLASS_COLUMNS, _class_rows(predictions, images))
    pairs = (
        (names[true], names[predicted], count, round(100 * count / int(images[true]), 4))
        for true, predicted, count in predictions.confused
    )
    _write_csv(out_dir / PAIRS_NAME, PAIR_COLUMNS, pairs)
    if len(outputs) > MOST_CLASSES:
        (out_dir / CONFUSION_NAME).unlink(missing_ok=True)
        return
    columns = ("class", *(names[output] for output in outputs))
    rows = zip(columns[1:], predictions.matrix().tolist(), strict=True)
    _write_csv(out_dir / CONFUSION_NAME, columns, ((name, *row) for name, row in rows))


def _class_rows(predictions: Predictions, images: np.ndarray) -> Iterable[tuple[object, ...]]:
    names, targets = predictions.names, predictions.targets
    hits = np.bincount(targets[targets == predictions.predicted], minlength=len(names))
    among_five = np.bincount(targets[predictions.among_five], minlength=len(names))
    predicted = np.bincount(predictions.predicted, minlength=len(names))
    worst: dict[int, tuple[str, int]] = {}
    for true, other, count in predictions.confused:
        worst.setdefault(true, (names[other], count))
    for output in predictions.outputs:
        count = int(images[output])
        errors = [round(100 * (1 - int(kind[output]) / count), 4) if count else ""
                  for kind in (hits, among_five)]  # fmt: skip
        yield (names[output], count, *errors, int(predicted[output]), *worst.get(output, ("", 0)))


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    # A class's name is a folder's, which may hold bytes that are no UTF-8.
    with (
        atomic_write(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
