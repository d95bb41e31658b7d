"""The images to predict: files and folders, and those that cannot be read."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from training.errors import UserError
from training.images.files import images_below
from training.loading.bad_images import BadImage


@dataclass(frozen=True)
class UnlabelledImages:
    """Image files; each stands for a class of its own, its number among them."""

    paths: Sequence[Path]
    shard_sizes: ClassVar[None] = None

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> Image.Image:
        return Image.open(self.paths[index])

    def target(self, index: int) -> int:
        return index

    def name(self, index: int) -> str:
        return str(self.paths[index])


class NamedBadImages:
    """Names each image that cannot be read on the standard error, and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, found: Iterable[BadImage]) -> None:
        for image in found:
            self.count += 1
            line = f"{image.name}: cannot be read as an image ({image.reason})"
            print(line, file=sys.stderr, flush=True)


def image_paths(names: Sequence[str]) -> list[Path]:
    """Return the files among ``names``, and the image files in its folders, found as in training.

    Raises:
        UserError: there is no such file or folder, or no image in a folder.
    """
    paths = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            found = [path / file for file in images_below(name)]
            if not found:
                endings = ", ".join(IMG_EXTENSIONS)
                raise UserError(f"IMAGES {name}: holds no images (files ending in {endings})")
            paths += found
        elif path.exists():
            paths.append(path)
        else:
            raise UserError(f"IMAGES {name}: no such file or folder")
    return paths
