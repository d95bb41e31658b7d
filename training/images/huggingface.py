"""Images in a folder of Hugging Face's ``datasets``, or in Parquet files: ``--data hf:PATH``.

The package datasets is imported where such a folder is read. It looks at local files only.
"""

import io
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

from training.errors import UserError, shortened
from training.images.datasets import Data

if TYPE_CHECKING:
    import datasets

PREFIX = "hf:"
"""What ``--data`` begins with."""

VAL_SPLITS = ("validation", "val", "valid", "test")
"""Names of the split to validate on; the first one that there is."""

SPLITS = ("train", *VAL_SPLITS)

PARQUET_NAME = re.compile(rf"({'|'.join(SPLITS)})([-_.]?\d+)?(-of-\d+)?(-[0-9a-f]{{16}})?\.parquet")
"""Of train.parquet, train-00000-of-00005.parquet and, in older uploads, with a hash behind it."""

IMAGE_NAMES = ("image", "img")
"""What the column of images is called where there are several."""


@dataclass(frozen=True)
class DatasetImages:
    """Images of one split, still encoded, in a file that is mapped into memory.

    Attributes:
        rows: the split.
        column: of ``rows`` with the images.
        targets: [N] class indices.
        title: what the split is called, for a person.
    """

    rows: "datasets.Dataset"
    column: str
    targets: np.ndarray
    title: str
    shard_sizes: ClassVar[None] = None

    def __len__(self) -> int:
        return len(self.targets)

    def image(self, index: int) -> Image.Image:
        encoded = self.rows[index][self.column] or {}
        content, path = encoded.get("bytes"), encoded.get("path")
        if content is None and path is None:
            raise OSError("there is none in this row")
        return Image.open(path if content is None else io.BytesIO(content))

    def target(self, index: int) -> int:
        return int(self.targets[index])

    def name(self, index: int) -> str:
        return f"{self.title}, image {index + 1}"

    def checksum(self) -> int:
        return zlib.crc32(self.targets)


def load_huggingface(data: str, train: bool) -> Data:
    """Return the images of ``hf:PATH``.

    PATH is a folder that ``DatasetDict.save_to_disk`` has written, or one with Parquet files
    whose names (``PARQUET_NAME``), or whose folders', are their split's; those of a split lie in
    one folder. Parquet is first converted to Arrow files in the package's cache (``HF_HOME``),
    which takes as much space again.

    Raises:
        UserError: the package datasets is missing, nothing fits, or files are of no certain split.
    """
    root = Path(data.removeprefix(PREFIX))
    if not root.is_dir():
        raise UserError(f"--data {data}: no such directory")
    read = _saved if (root / "dataset_dict.json").exists() else _parquet
    try:
        splits = read(root, train)
    except ModuleNotFoundError as error:
        raise UserError(f"--data {data}: needs a package: pip install datasets") from error
    except (OSError, ValueError) as error:
        raise UserError(f"--data {data}: cannot be read ({error})") from error
    found = [_images(rows, f"{data}, {name}") for name, rows in splits.items()]
    classes = max((of_split for _, of_split in found), key=len)
    if any(of_split != classes[: len(of_split)] for _, of_split in found):
        raise UserError(f"--data {data}: its splits have different classes")
    return Data(
        train=found[0][0] if train else None,
        val=found[-1][0],
        classes=classes,
        classes_have_names=_has_names([*splits.values()][-1]),
    )


def _saved(root: Path, train: bool) -> "dict[str, datasets.Dataset]":
    from datasets import load_from_disk

    # A format that was saved may hide columns, and decodes the images.
    splits = load_from_disk(str(root)).with_format(None)
    return {name: splits[name] for name in chosen_splits([*splits], train, root)}


def _parquet(root: Path, train: bool) -> "dict[str, datasets.Dataset]":
    from datasets import Dataset

    files = parquet_files(root, train)
    return {name: Dataset.from_parquet([*map(str, paths)]) for name, paths in files.items()}


def chosen_splits(
    found: Sequence[str], train: bool, root: Path, left_out: Sequence[str] = ()
) -> list[str]:
    """Return which of the splits ``found`` are read: to train on first, to validate on last.

    Args:
        found: names of the splits in ``root``.
        train: whether training images are wanted.
        root: the folder, for the error.
        left_out: Parquet files of no split, for the error.
    """
    val = next((name for name in VAL_SPLITS if name in found), None)
    if val is None or (train and "train" not in found):
        names = f"; files whose names are no split's: {shortened(left_out)}" if left_out else ""
        raise UserError(
            f"--data {PREFIX}{root}: has the splits {', '.join(found) or '(none)'}; there must be "
            f"train and one of {', '.join(VAL_SPLITS)}, in a folder of save_to_disk or as the "
            f"names of Parquet files or their folders{names}"
        )
    return [*(["train"] if train else []), val]


def parquet_files(root: Path, train: bool) -> dict[str, list[Path]]:
    """Return the files in ``root`` of the splits that are read, to validate on last.

    Raises:
        UserError: a split is missing, or it is not certain which files are its own.
    """
    files: dict[str, list[Path]] = {}
    left_out = []
    for path in sorted(root.rglob("*.parquet")):
        split = _split_of(path.relative_to(root))
        if split is None:
            left_out.append(path)
        else:
            files.setdefault(split, []).append(path)
    found = [name for name in SPLITS if name in files]
    chosen = chosen_splits(found, train, root, _below(root, left_out))
    for split in chosen:
        _check_one_data_set(root, split, files[split], left_out)
    return {split: files[split] for split in chosen}


def _split_of(path: Path) -> str | None:
    named = PARQUET_NAME.fullmatch(path.name)
    words = [named[1]] if named else path.parts[:-1]
    return next((word for word in words if word in SPLITS), None)


def _below(root: Path, paths: Sequence[Path]) -> list[str]:
    return [str(path.relative_to(root)) for path in paths]


def _check_one_data_set(
    root: Path, split: str, paths: Sequence[Path], left_out: Sequence[Path]
) -> None:
    folders = sorted({path.parent for path in paths})
    if len(folders) > 1:
        raise UserError(
            f"--data {PREFIX}{root}: Parquet files of the split {split} lie in several folders "
            f"({shortened(_below(root, folders))}), as of several data sets; name the folder of "
            "one of them"
        )
    # Not of validation, where the split is val.
    begins = re.compile(rf"{split}[^A-Za-z]")
    doubtful = [each for each in left_out if each.parent in folders and begins.match(each.name)]
    if doubtful:
        raise UserError(
            f"--data {PREFIX}{root}: {shortened(_below(root, doubtful))} may be a part of the "
            f"split {split} or of another data set; rename parts as in "
            f"{split}-00000-of-00002.parquet, or name a folder that holds the wanted files alone"
        )


def _images(split: "datasets.Dataset", title: str) -> tuple[DatasetImages, tuple[str, ...]]:
    """Return the images of a split, and the names of its classes."""
    from datasets import Image as ImageFeature

    column, label = _image_column(split, title), _label_column(split, title)
    rows = split.select_columns([column])
    if isinstance(split.features[column], ImageFeature):
        rows = rows.cast_column(column, ImageFeature(decode=False))
    # All at once: a column on its own is read number by number.
    labels = np.asarray(split.select_columns([label]).with_format("numpy")[:][label])
    names = getattr(split.features[label], "names", None)
    if labels.dtype.kind not in "iu" or labels.min(initial=0) < 0:
        raise UserError(f"--data {title}: its column {label} has images without a class number")
    if names is None:
        names = [str(number) for number in range(labels.max(initial=-1) + 1)]
    images = DatasetImages(rows, column=column, targets=labels.astype(np.int32), title=title)
    return images, tuple(names)


def _image_column(split: "datasets.Dataset", title: str) -> str:
    from datasets import Image as ImageFeature

    found = [
        name
        for name, feature in split.features.items()
        # Of Parquet files that others than datasets wrote, a plain structure.
        if isinstance(feature, ImageFeature) or (isinstance(feature, dict) and "bytes" in feature)
    ]
    for candidates in (found, [name for name in found if name in IMAGE_NAMES]):
        if len(candidates) == 1:
            return candidates[0]
    raise UserError(
        f"--data {title}: needs one column of images, or of several one that is called "
        f"{' or '.join(IMAGE_NAMES)} ({_told(split)})"
    )


def _label_column(split: "datasets.Dataset", title: str) -> str:
    from datasets import ClassLabel, Value

    labels = [name for name, each in split.features.items() if isinstance(each, ClassLabel)]
    if len(labels) == 1:
        return labels[0]
    if isinstance(split.features.get("label"), (ClassLabel, Value)):
        return "label"
    raise UserError(
        f"--data {title}: needs one column of class labels, or a column called label with one "
        f"number an image ({_told(split)})"
    )


def _has_names(split: "datasets.Dataset") -> bool:
    from datasets import ClassLabel

    return any(isinstance(feature, ClassLabel) for feature in split.features.values())


def _told(split: "datasets.Dataset") -> str:
    columns: Sequence[tuple[str, Any]] = list(split.features.items())
    return "it has " + ", ".join(f"{name}: {type(each).__name__}" for name, each in columns)
