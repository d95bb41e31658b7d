"""The example images that are shown, kept beside the results so that a figure needs no data set."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.pooling_study.plan import GUIDED
from experiments.pooling_study.rows import ExampleRow
from experiments.rows import read_rows, write_rows
from training.images.fashion_mnist import read_split

CELL_OF_EXAMPLES = ("fashion", "small_cnn")


@dataclass(frozen=True)
class ExampleImage:
    """One of Fashion-MNIST's test images.

    Attributes:
        image: its index.
        width: of the image in pixels.
        pixels: its bytes in hexadecimal digits, line by line.
    """

    image: int
    width: int
    pixels: str


def examples_shown(examples: Iterable[ExampleRow]) -> list[ExampleRow]:
    """Return those of ``examples`` that the figure shows."""
    return [
        row
        for row in examples
        if (row.task, row.network) == CELL_OF_EXAMPLES and row.pooling == GUIDED
    ]


def keep_example_images(folder: Path, data: str) -> None:
    """Write ``example_images.csv`` of the examples in ``folder``, if there are any.

    ``data`` is the folder of Fashion-MNIST's files.
    """
    path = folder / "examples.csv"
    shown = examples_shown(read_rows(ExampleRow, path)) if path.exists() else []
    if shown:
        images, _ = read_split(data, "t10k")
        kept = sorted({row.image for row in shown})
        rows = [ExampleImage(each, images.shape[2], images[each].tobytes().hex()) for each in kept]
        write_rows(rows, folder / "example_images.csv")


def read_example_images(folder: Path) -> Mapping[int, np.ndarray]:
    """Return the images [H, W] of bytes that ``keep_example_images`` wrote, by index."""
    return {
        row.image: np.frombuffer(bytes.fromhex(row.pixels), np.uint8).reshape(-1, row.width)
        for row in read_rows(ExampleImage, folder / "example_images.csv")
    }
