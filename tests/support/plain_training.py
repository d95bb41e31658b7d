"""``python -m tests.support.plain_training OPTIONS`` is ``train_imagenet.py OPTIONS`` for a plain
network: one whose result does not depend on how the images are shared among processes.

Batch normalisation makes it depend, as each process normalises by the statistics of its own share.
"""

import sys

from torch import nn

import train_imagenet
import training.command

__all__ = ["create_plain_network", "main"]


def create_plain_network(arch: str, pool: str, classes: int) -> nn.Module:
    """Take the place of ``models.create_model``, for images of 32×32.

    Gradients of more than a megabyte, so that processes share them in several parts.
    """
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(32 * 8 * 8, 256), nn.ReLU(), nn.Linear(256, classes)),
    )


def main(options: list[str]) -> int:
    training.command.create_model = create_plain_network
    return train_imagenet.main(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
