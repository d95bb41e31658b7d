"""What the networks learn: Fashion-MNIST, and the same images lost on a cluttered canvas.

Every image is kept with a margin, from which what the network sees is cut when it is moved. Around
Fashion-MNIST's images that is black, as their background is; canvases go on.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.images.datasets import DATASETS
from training.images.fashion_mnist import read_split
from training.seeding import derive_seed

TRAIN_MARGIN = 2
TEST_MARGIN = 8
CANVAS_SIZE = 64
CANVAS_TRAIN_IMAGES = 20_000
NOISE = 64
FRAGMENTS, FRAGMENT_SIZE = 9, 12


@dataclass(frozen=True)
class Images:
    """Images [N, 1, size + 2 margin, size + 2 margin] of bytes, and class indices [N].

    Attributes:
        margin: pixels on each side that a network sees of a shifted image alone.
    """

    images: Tensor
    targets: Tensor
    margin: int

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def size(self) -> int:
        return self.images.shape[-1] - 2 * self.margin

    @property
    def indices(self) -> Tensor:
        return torch.arange(len(self), device=self.targets.device)

    def to(self, device: torch.device) -> "Images":
        return Images(self.images.to(device), self.targets.to(device), self.margin)

    def every(self, count: int) -> "Images":
        """Return ``count`` of the images, or all: the first, and those at the largest equal steps
        from it of which there are so many."""
        chosen = torch.arange(min(count, len(self))) * (len(self) // min(count, len(self)))
        chosen = chosen.to(self.targets.device)
        return Images(self.images[chosen], self.targets[chosen], self.margin)

    def unmoved(self, which: Tensor) -> Tensor:
        """Return what a network sees of the images ``which`` [B], none of which is moved."""
        nowhere = torch.zeros_like(which)
        return self.cut(which, down=nowhere, right=nowhere)

    def cut(
        self, which: Tensor, down: Tensor, right: Tensor, mirrored: Tensor | None = None
    ) -> Tensor:
        """Return what a network sees of the images ``which`` [B]: [B, 1, size, size] from -1 to 1.

        Args:
            which: [B] indices, on the device of the images as all that follows.
            down, right: [B] by how many pixels each image is moved, at most ``margin``.
            mirrored: [B] of bool, whether left and right change places; none of them by default.
        """
        pixels = torch.arange(self.size, device=which.device)
        columns = pixels.expand(len(which), -1)
        if mirrored is not None:
            columns = torch.where(mirrored[:, None], self.size - 1 - pixels, columns)
        rows = (pixels + self.margin - down[:, None])[:, :, None]
        columns = (columns + self.margin - right[:, None])[:, None, :]
        bytes_ = self.images[:, 0][which[:, None, None], rows, columns]
        return bytes_[:, None].float() / 127.5 - 1


@dataclass(frozen=True)
class Task:
    """What is learned and what is tested."""

    train: Images
    test: Images


def fashion_mnist(data: str) -> Task:
    """Return Fashion-MNIST in full, of the files in the folder ``data``; the margins are black."""
    splits = []
    for name, margin in (("train", TRAIN_MARGIN), ("t10k", TEST_MARGIN)):
        images, targets = read_split(data, name)
        margins = ((0, 0), (margin, margin), (margin, margin))
        splits.append(_as_images(np.pad(images, margins), targets, margin))
    return Task(*splits)


def cluttered_canvas(data: str) -> Task:
    """Return Fashion-MNIST's images, each somewhere on a cluttered canvas of 64×64 pixels.

    20,000 of the training images and all test images. See ``clutter``.
    """
    splits = []
    for name, margin, count in (
        ("train", TRAIN_MARGIN, CANVAS_TRAIN_IMAGES),
        ("t10k", TEST_MARGIN, None),
    ):
        images, targets = read_split(data, name)
        images, targets = images[:count], targets[:count]
        random = np.random.default_rng(derive_seed(0, f"canvas {name}"))
        # All with the same margin, and thus as much clutter.
        canvases = clutter(images, CANVAS_SIZE, TEST_MARGIN, random)
        first, end = TEST_MARGIN - margin, canvases.shape[1] - (TEST_MARGIN - margin)
        splits.append(_as_images(canvases[:, first:end, first:end], targets, margin))
    return Task(*splits)


def clutter(images: np.ndarray, size: int, margin: int, random: np.random.Generator) -> np.ndarray:
    """Return ``images`` [N, h, w] on canvases [N, size + 2 margin, size + 2 margin] of bytes.

    A canvas is noise, evenly distributed below 64. Nine squares of 12×12 pixels, each cut out of
    another image of ``images``, lie anywhere on it, and the image anywhere within the ``size`` ×
    ``size`` pixels in the middle. Of what overlaps, the lighter pixel is seen.
    """
    whole = size + 2 * margin
    height, width = images.shape[1:]
    canvases = random.integers(0, NOISE, (len(images), whole, whole), dtype=np.uint8)
    distances = random.integers(1, len(images), (len(images), FRAGMENTS))
    sources = (np.arange(len(images))[:, None] + distances) % len(images)
    corner = np.array([height, width]) - FRAGMENT_SIZE
    cut_at = random.integers(0, corner + 1, (len(images), FRAGMENTS, 2))
    put_at = random.integers(0, whole - FRAGMENT_SIZE + 1, (len(images), FRAGMENTS, 2))
    image_at = margin + random.integers(
        0, np.array([size - height, size - width]) + 1, (len(images), 2)
    )
    for index, canvas in enumerate(canvases):
        for source, (y, x), at in zip(sources[index], cut_at[index], put_at[index], strict=True):
            _lay(canvas, images[source, y : y + FRAGMENT_SIZE, x : x + FRAGMENT_SIZE], at)
        _lay(canvas, images[index], image_at[index])
    return canvases


TASKS: dict[str, Callable[[str], Task]] = {"fashion": fashion_mnist, "canvas": cluttered_canvas}
DATA = DATASETS["fashion-mnist"].root


def _lay(canvas: np.ndarray, piece: np.ndarray, at: np.ndarray) -> None:
    y, x = at
    place = canvas[y : y + piece.shape[0], x : x + piece.shape[1]]
    np.maximum(place, piece, out=place)


def _as_images(images: np.ndarray, targets: np.ndarray, margin: int) -> Images:
    return Images(torch.tensor(images)[:, None], torch.tensor(targets, dtype=torch.long), margin)
