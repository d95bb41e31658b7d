"""Fashion-MNIST: grey 28x28 images of clothes, in the four files it comes in."""

from pathlib import Path

import numpy as np

from training.errors import UserError
from training.images.idx import read_idx

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def read_split(root: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images [N, H, W] and class indices [N] of ``train`` or ``t10k``, the test images.

    H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking
    Machine Learning Algorithms", 2017: 60,000 training and 10,000 test images. Their files
    ``NAME-images-idx3-ubyte`` and ``NAME-labels-idx1-ubyte`` may end in ``.gz`` as well.

    Raises:
        UserError: a file is missing or damaged, or the two do not go together.
    """
    images = read_idx(_path(root, f"{name}-images-idx3-ubyte"))
    targets = read_idx(_path(root, f"{name}-labels-idx1-ubyte"))
    if images.ndim != 3 or targets.ndim != 1 or not 0 < len(images) == len(targets):
        raise UserError(
            f"--data {root}: {name} has images of shape {images.shape} and labels of shape "
            f"{targets.shape}; they must be [N, H, W] and [N]"
        )
    if targets.max() >= len(CLASSES):
        raise UserError(
            f"--data {root}: {name} has a label {targets.max()}; they go from 0 to "
            f"{len(CLASSES) - 1}"
        )
    return images, targets


def _path(root: str, name: str) -> Path:
    for path in (Path(root, name), Path(root, f"{name}.gz")):
        if path.is_file():
            return path
    raise UserError(
        f"--data {root}: holds no {name} nor {name}.gz; give the folder of Fashion-MNIST's four "
        "files (Debian has them in the package dataset-fashion-mnist)"
    )
