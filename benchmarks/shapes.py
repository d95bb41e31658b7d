"""The feature maps that the benchmark pools: those of three networks, or any other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gfgp_cupy.geometry import pool_geometry

__all__ = ["NETWORKS", "Shape", "select_shapes"]


@dataclass(frozen=True)
class Shape:
    """A feature map of one sample and the pooling it meets, written ``64x112x112:3/2/1``.

    Attributes:
        channels, height, width: in elements.
        kernel_size, stride, padding: in elements, the same for height and width.
    """

    channels: int
    height: int
    width: int
    kernel_size: int
    stride: int
    padding: int

    @classmethod
    def parse(cls, text: str) -> Shape:
        """The shape that ``text`` stands for.

        Raises:
            ValueError: ``text`` is not of that form, or nothing would be left after pooling.
        """
        match = re.fullmatch(r"(\d+)x(\d+)x(\d+):(\d+)/(\d+)/(\d+)", text)
        if match is None:
            raise ValueError(
                f"{text!r} is neither {', '.join(NETWORKS)} nor "
                "CHANNELSxHEIGHTxWIDTH:KERNEL/STRIDE/PADDING such as 64x112x112:3/2/1"
            )
        shape = cls(*map(int, match.groups()))
        if shape.channels < 1 or min(shape.output_size) < 1:
            raise ValueError(f"{text!r} leaves no output")
        return shape

    def __str__(self) -> str:
        return (
            f"{self.channels}x{self.height}x{self.width}:"
            f"{self.kernel_size}/{self.stride}/{self.padding}"
        )

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width of the pooled map."""
        geometry = pool_geometry(self.kernel_size, self.stride, self.padding)
        return geometry.output_size(self.height, self.width)

    @property
    def input_elements(self) -> int:
        """Elements of one sample."""
        return self.channels * self.height * self.width

    @property
    def output_elements(self) -> int:
        """Elements of one pooled sample."""
        height, width = self.output_size
        return self.channels * height * width


def _halved(*channels_and_sizes: tuple[int, int]) -> tuple[Shape, ...]:
    return tuple(Shape(channels, size, size, 2, 2, 0) for channels, size in channels_and_sizes)


_STEM = (*_halved((64, 224)), Shape(64, 112, 112, 3, 2, 1))

NETWORKS = {
    "resnet50": (*_STEM, *_halved((512, 56), (1024, 28), (2048, 14))),
    "vgg16": _halved((64, 224), (128, 112), (256, 56), (512, 28), (512, 14)),
    "densenet169": (*_STEM, *_halved((128, 56), (256, 28), (640, 14))),
}
"""The poolings of each network under ``pool="max_ent"``, for images of 224x224 pixels."""


def select_shapes(names: Sequence[str]) -> list[Shape]:
    """The shapes of networks and single shapes, each once, in the order named.

    Raises:
        ValueError: as :meth:`Shape.parse`.
    """
    shapes = [
        shape
        for name in names
        for shape in (NETWORKS[name] if name in NETWORKS else (Shape.parse(name),))
    ]
    return list(dict.fromkeys(shapes))
