"""Image files by the million: their paths in one array of bytes."""

import os
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

import numpy as np
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS


class ImageFiles:
    """Image files, and the class index of each.

    Worker processes share the arrays with the process that they were forked from. Of a list of
    paths each would come to hold its own copy, page after page, as Python counts references.

    Args:
        samples: pairs of a path and a class index.
        root: what the paths are relative to.

    Example:
        >>> files = ImageFiles([("cat/1.png", 0), ("dog/1.png", 1)], root="val")
        >>> len(files), files.name(1), files.target(1)
        (2, 'val/dog/1.png', 1)
    """

    shard_sizes: ClassVar[None] = None

    def __init__(self, samples: Iterable[tuple[str, int]], root: str = "") -> None:
        paths, ends, targets = bytearray(), array("q", [0]), array("i")
        for path, target in samples:
            paths += os.fsencode(path)
            ends.append(len(paths))
            targets.append(target)
        self.root = root
        self.paths = np.frombuffer(paths, np.uint8)
        self.ends = np.frombuffer(ends, np.int64)
        self.targets = np.frombuffer(targets, np.int32)

    def __len__(self) -> int:
        return len(self.targets)

    def image(self, index: int) -> Image.Image:
        return Image.open(self.name(index))

    def target(self, index: int) -> int:
        return int(self.targets[index])

    def name(self, index: int) -> str:
        return os.path.join(self.root, self._path(index))

    def checksum(self) -> int:
        return zlib.crc32(self.targets, zlib.crc32(self.paths, zlib.crc32(self.ends)))

    def subset(self, indices: Iterable[int]) -> "ImageFiles":
        """Return the files ``indices``, in their order."""
        return ImageFiles(((self._path(each), self.target(each)) for each in indices), self.root)

    def _path(self, index: int) -> str:
        return os.fsdecode(self.paths[self.ends[index] : self.ends[index + 1]].tobytes())


def find_images(folder: str, classes: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """Yield the path of each image under ``folder/CLASS/``, relative to it, and the class's number.

    In the order of torchvision's ``ImageFolder``, and one class's names in memory at a time; see
    ``images_below``.
    """
    for name, number in sorted(classes.items()):
        for path in images_below(os.path.join(folder, name)):
            yield os.path.join(name, path), number


def images_below(folder: str) -> Iterator[str]:
    """Yield the path of each image in ``folder`` and the folders in it, relative to it.

    Links to folders are followed, but not back to one that they are in. Files and folders whose
    names start with a point, such as ``.ipynb_checkpoints``, are left out.
    """
    for parent, files in sorted(_walk(folder)):
        below = os.path.relpath(parent, folder)
        parts = [] if below == os.curdir else below.split(os.sep)
        for file in sorted(files):
            if file.lower().endswith(IMG_EXTENSIONS) and not any(
                part.startswith(".") for part in (*parts, file)
            ):
                yield os.path.join(*parts, file)


def _walk(folder: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder from ``folder`` on, and the names of its files."""
    chains = {folder: (os.path.realpath(folder),)}
    for parent, folders, files in os.walk(folder, followlinks=True):
        chain = chains.pop(parent)
        # None that it is in: a link back would be followed without end.
        real = {name: os.path.realpath(os.path.join(parent, name)) for name in folders}
        folders[:] = [name for name in folders if real[name] not in chain]
        chains |= {os.path.join(parent, name): (*chain, real[name]) for name in folders}
        yield parent, files
