"""``python -m tests.support.steady_training OPTIONS`` is ``train_imagenet.py OPTIONS`` for a
network of few weights whose steps take tens of milliseconds.

A signal comes to all processes within an epoch, and there is little to write. The curves are not
drawn.
"""

import sys

from torch import nn

import train_imagenet
import training.command
import training.records.figures
from tests.training.conftest import write_no_curves

__all__ = ["main"]


def create_steady_network(arch: str, pool: str, classes: int) -> nn.Module:
    """Take the place of ``models.create_model``, for images of 32×32."""
    return nn.Sequential(
        *(nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes)),
    )


def main(options: list[str]) -> int:
    training.command.create_model = create_steady_network
    training.records.figures.write_figures = write_no_curves
    return train_imagenet.main(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
