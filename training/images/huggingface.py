"""Images in a folder of Hugging Face's ``datasets``, or in Parquet files: ``--data hf:PATH``.

The package datasets is imported where such a folder is read. It looks at local files only.
"""

import io
import re
import zlib
from collections.abc import Mapping, Sequence
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
        UserError: the package datasets is missing, or there is nothing that fits.
    """
    root = Path(data.removeprefix(PREFIX))
    if not root.is_dir():
        raise UserError(f"--data {data}: no such directory")
    try:
        splits = _saved(root) if (root / "dataset_dict.json").exists() else _parquet(root)
    except ModuleNotFoundError as error:
        raise UserError(f"--data {data}: needs a package: pip install datasets") from error
    except (OSError, ValueError) as error:
        raise UserError(f"--data {data}: cannot be read ({error})") from error
    val_name = next((name for name in VAL_SPLITS if name in splits), None)
    if val_name is None or (train and "train" not in splits):
        raise UserError(
            f"--data {data}: has the splits {', '.join(splits) or '(none)'}; there must be train "
            f"and one of {', '.join(VAL_SPLITS)}, in a folder of save_to_disk or as the names of "
            "Parquet files or their folders"
        )
    names = [*(["train"] if train else []), val_name]
    found = [_images(splits[name], f"{data}, {name}") for name in names]
    classes = max((of_split for _, of_split in found), key=len)
    if any(of_split != classes[: len(of_split)] for _, of_split in found):
        raise UserError(f"--data {data}: its splits have different classes")
    return Data(
        train=found[0][0] if train else None,
        val=found[-1][0],
        classes=classes,
        classes_have_names=_has_names(splits[val_name]),
    )


def _saved(root: Path) -> "Mapping[str, datasets.Dataset]":
    from datasets import load_from_disk

    # A format that was saved may hide columns, and decodes the images.
    return load_from_disk(str(root)).with_format(None)


def _parquet(root: Path) -> "Mapping[str, datasets.Dataset]":
    from datasets import Dataset

    files: dict[str, list[Path]] = {name: [] for name in SPLITS}
    for path in sorted(root.rglob("*.parquet")):
        named = PARQUET_NAME.fullmatch(path.name)
        words = [named[1]] if named else path.relative_to(root).parts[:-1]
        for split in [word for word in words if word in SPLITS][:1]:
            files[split].append(path)
    for split, paths in files.items():
        folders = sorted({str(path.parent.relative_to(root)) for path in paths})
        if len(folders) > 1:
            raise UserError(
                f"--data {PREFIX}{root}: Parquet files of the split {split} lie in several folders "
                f"({shortened(folders)}), as of several data sets; name the folder of one of them"
            )
    return {
        split: Dataset.from_parquet([*map(str, paths)]) for split, paths in files.items() if paths
    }


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
