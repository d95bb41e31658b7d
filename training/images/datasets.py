"""The data sets of ``--dataset``.

Add one to ``DATASETS`` and the command line takes it; ``training.options`` names it in the help.
"""

import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from training.errors import UserError, shortened
from training.images import fashion_mnist
from training.images.exclusion import indices_to_keep
from training.images.files import ImageFiles, find_images


class BrokenSource(OSError):
    """A file that holds many images cannot be read."""


class LabelledImages(Protocol):
    """Images with class indices; ``name(i)`` says which file image i is.

    ``image(i)`` opens it: its pixels, of any mode, may be read and decoded at their first use.
    It raises OSError, or ``BrokenSource`` where not that image alone cannot be read.
    ``checksum()`` is of all that is known of them without opening one, and the same on machines
    whose folders are called otherwise; it raises UserError where it cannot read a file's beginning.
    ``shard_sizes`` are the numbers of images that lie together in files which are best read from
    their start, or None where each image is found as fast as any other.
    """

    @property
    def shard_sizes(self) -> Sequence[int] | None: ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image.Image: ...

    def target(self, index: int) -> int: ...

    def name(self, index: int) -> str: ...

    def checksum(self) -> int: ...


@dataclass(frozen=True)
class Data:
    """What a data set holds; ``train`` is None where only the evaluation was asked for.

    Attributes:
        classes: the names of the class indices.
        classes_have_names: False where the names are but the indices as text.
    """

    train: LabelledImages | None
    val: LabelledImages
    classes: tuple[str, ...]
    classes_have_names: bool = True


@dataclass(frozen=True)
class RelabelledImages:
    """``images`` with the class index ``numbers[i]`` in place of each i."""

    images: LabelledImages
    numbers: Sequence[int]

    @property
    def shard_sizes(self) -> Sequence[int] | None:
        return self.images.shard_sizes

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> Image.Image:
        return self.images.image(index)

    def target(self, index: int) -> int:
        return self.numbers[self.images.target(index)]

    def name(self, index: int) -> str:
        return self.images.name(index)

    def checksum(self) -> int:
        return self.images.checksum()


def relabelled(data: Data, numbers: Sequence[int], classes: tuple[str, ...]) -> Data:
    """Return ``data`` with ``classes``, among which its own class i is number ``numbers[i]``."""
    if list(numbers) == list(range(len(numbers))):
        return replace(data, classes=classes)
    train = None if data.train is None else RelabelledImages(data.train, numbers)
    return replace(data, train=train, val=RelabelledImages(data.val, numbers), classes=classes)


@dataclass(frozen=True)
class ImageArray:
    """Images in memory: ``images`` [N, H, W, 3] or, of greys, [N, H, W] uint8.

    ``targets`` [N] are class indices.
    """

    images: np.ndarray
    targets: np.ndarray
    shard_sizes: ClassVar[None] = None

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(self.images[index]).convert("RGB")

    def target(self, index: int) -> int:
        return int(self.targets[index])

    def name(self, index: int) -> str:
        return f"image {index}"

    def checksum(self) -> int:
        return zlib.crc32(self.images, zlib.crc32(self.targets))


def load_digits_data(root: str, exclude: str | None, train: bool) -> Data:
    """Return scikit-learn's 1,797 handwritten digits as 32x32 RGB images.

    E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998 (8x8
    pixels of 17 grey levels). The split is fixed and stratified: 1,437 digits to train, 360 to
    test. ``root`` is not used: the digits come with scikit-learn.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    if exclude is not None:
        raise UserError(f"--exclude {exclude}: the digits are no files that it could list")
    digits = load_digits()
    images = np.stack([_digit_image(pixels) for pixels in digits.images])
    train_images, val_images, train_targets, val_targets = train_test_split(
        images, digits.target, test_size=0.2, stratify=digits.target, random_state=0
    )
    return Data(
        train=ImageArray(train_images, train_targets) if train else None,
        val=ImageArray(val_images, val_targets),
        classes=tuple(str(name) for name in digits.target_names),
    )


def load_fashion_mnist(root: str, exclude: str | None, train: bool) -> Data:
    """Return Fashion-MNIST's images, as RGB, from its four files in ``root``.

    Raises:
        UserError: a file is missing or damaged.
    """
    if exclude is not None:
        raise UserError(f"--exclude {exclude}: Fashion-MNIST's images are no files it could list")
    return Data(
        train=ImageArray(*fashion_mnist.read_split(root, "train")) if train else None,
        val=ImageArray(*fashion_mnist.read_split(root, "t10k")),
        classes=fashion_mnist.CLASSES,
    )


def load_image_folders(root: str, exclude: str | None, train: bool) -> Data:
    """Return the images under ``root/train/CLASS/`` and ``root/val/CLASS/`` (or ``val_dir``).

    The classes are the folders of ``train`` in the order of their names as text; those of ``val``
    must be among them. Without ``train`` (``train=False`` and no such folder) they are the folders
    of ``val``. A folder whose name starts with a point is no class.

    Raises:
        UserError: a folder is missing or empty, or ``exclude`` is a list that does not fit.
    """
    if not Path(root).is_dir():
        raise UserError(
            f"--data {root}: no such directory; it must hold train/ and val/, or name shards "
            "beside --val-data"
        )
    train_root = Path(root, "train")
    val_root = Path(root, "val")
    if not val_root.is_dir() and Path(root, "val_dir").is_dir():
        val_root = Path(root, "val_dir")
    classes = _class_numbers(train_root if train or train_root.is_dir() else val_root)
    val = _image_files(val_root, classes)
    if exclude is not None:
        names = [Path(val.name(index)).name for index in range(len(val))]
        val = val.subset(indices_to_keep(names, exclude))
    return Data(
        train=_image_files(train_root, classes) if train else None,
        val=val,
        classes=tuple(classes),
    )


@dataclass(frozen=True)
class DatasetEntry:
    """A name of ``--dataset``.

    Attributes:
        load: (``--data``, ``--exclude`` or None, with the training images?) -> Data.
        config_name: the recipe that is used when ``--config-name`` is not given.
        in_memory: the images need no decoding, so by default no worker processes.
        root: what ``--data`` is when it is not given.
    """

    load: Callable[[str, str | None, bool], Data]
    config_name: str
    in_memory: bool
    root: str


DATASETS = {
    "digits": DatasetEntry(load_digits_data, config_name="digits", in_memory=True, root=""),
    "fashion-mnist": DatasetEntry(
        load_fashion_mnist,
        config_name="fashion-mnist",
        in_memory=True,
        root="/usr/share/datasets/fashion-mnist/",  # of Debian's package
    ),
    "imagenet": DatasetEntry(
        load_image_folders,
        config_name="imagenet",
        in_memory=False,
        root="./datasets/imagenet12/images/",
    ),
}


def _digit_image(pixels: np.ndarray) -> np.ndarray:
    grey = Image.fromarray((pixels * (255 / 16)).round().astype(np.uint8))
    return np.asarray(grey.resize((32, 32), Image.Resampling.BICUBIC).convert("RGB"))


def _class_numbers(folder: Path) -> dict[str, int]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such directory; it must hold a folder for each class")
    with os.scandir(folder) as entries:
        names = [each.name for each in entries if each.is_dir() and not each.name.startswith(".")]
    if not names:
        raise UserError(f"{folder}: holds no folders; it must hold one for each class")
    return {name: number for number, name in enumerate(sorted(names))}


def _image_files(folder: Path, classes: dict[str, int]) -> ImageFiles:
    own = _class_numbers(folder)
    strangers = sorted(set(own) - set(classes))
    if strangers:
        raise UserError(
            f"{folder}: its folder {strangers[0]!r} is no class of the training images; "
            "rename or remove it"
        )
    files = ImageFiles(find_images(str(folder), classes), root=str(folder))
    endings = f"files ending in {', '.join(IMG_EXTENSIONS)}"
    if not len(files):
        raise UserError(f"{folder}: holds no images ({endings})")
    filled = set(np.unique(files.targets).tolist())
    empty = [name for name in own if classes[name] not in filled]
    if empty:
        raise UserError(
            f"{folder}: holds no images of the classes {shortened(empty)} ({endings}); fill or "
            "remove their folders"
        )
    return files
