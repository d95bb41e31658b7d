"""Writes WebDataset shards of an image folder: ``python -m training.write_shards --help``."""

import argparse
import io
import json
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import torch

from training.errors import UserError, exit_code
from training.images.datasets import ImageFiles, load_image_folders
from training.images.shards import DESCRIPTION_NAME, check_webdataset

if TYPE_CHECKING:
    from webdataset import TarWriter


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv``; return the exit code, 2 if the user has to change it."""
    parser = make_parser()
    options = parser.parse_args(argv)
    if options.samples < 1:
        parser.error(f"--samples {options.samples}: must be 1 or more")
    return exit_code("training.write_shards", lambda: write_data(options))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.write_shards",
        description="Writes the images of a folder as shards for train_imagenet.py's --data and "
        "--val-data: the training images in a random order, the files themselves unchanged.",
        allow_abbrev=False,
    )
    parser.add_argument("images", help="folder that holds train/CLASS/ and val/CLASS/")
    parser.add_argument(
        "shards", help="folder for train-0000.tar, val-0000.tar...; what it has of them is replaced"
    )
    parser.add_argument(
        "--samples", type=int, default=8192, metavar="N",
        help="images of a shard (default: %(default)s, about 1 GB of ImageNet's)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N",
        help="of the training images' order (default: %(default)s)",
    )  # fmt: skip
    return parser


def write_data(options: argparse.Namespace) -> None:
    """Write the shards that the command line asks for, and say which.

    Raises:
        UserError: the package webdataset is missing, the images cannot be read, or the shards
            cannot be written.
    """
    check_webdataset(options.shards)
    try:
        if not Path(options.images).is_dir():
            raise UserError(f"{options.images}: no such directory; it must hold train/ and val/")
        data = load_image_folders(options.images, None, True)
        order = torch.randperm(
            len(data.train), generator=torch.Generator().manual_seed(options.seed)
        )
        for split, images, indices in (
            ("train", data.train, order.tolist()),
            ("val", data.val, list(range(len(data.val)))),
        ):
            count = write_split(
                images=images,
                indices=indices,
                classes=data.classes,
                folder=Path(options.shards),
                split=split,
                samples=options.samples,
            )
            print(f"{options.shards}/{split}-{{0000..{count - 1:04d}}}.tar: {len(indices)} images")
    except OSError as error:
        raise UserError(str(error)) from error


def write_split(
    images: ImageFiles,
    indices: Sequence[int],
    classes: Sequence[str],
    folder: Path,
    split: str,
    samples: int,
) -> int:
    """Write the images ``indices`` to ``folder/SPLIT-0000.tar`` and on; return how many shards.

    Whatever shards of the split there were are gone then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(indices), samples)
    for number, start in enumerate(starts):
        path = folder / f"{split}-{number:04d}.tar"
        partial = path.with_name(f"{path.name}.part")
        write_shard(
            images=images, indices=indices[start : start + samples], classes=classes, path=partial
        )
        partial.replace(path)
    for path in folder.glob(f"{split}-*.tar"):
        number = path.stem.removeprefix(f"{split}-")
        if number.isdecimal() and int(number) >= len(starts):
            path.unlink()  # of more shards that were there before
    return len(starts)


def shard_writer(file: BinaryIO) -> "TarWriter":
    """Return a writer of files as they are, names of any length, the same bytes each time."""
    from webdataset import TarWriter

    return TarWriter(file, encoder=False, mtime=0, format="PAX_FORMAT")


def write_shard(
    images: ImageFiles, indices: Sequence[int], classes: Sequence[str], path: Path
) -> None:
    """Write one shard: its description, then a file with the image and one with the class each."""
    description = json.dumps({"samples": len(indices), "classes": list(classes)}).encode()
    with path.open("wb") as file, shard_writer(file) as writer:
        info = tarfile.TarInfo(DESCRIPTION_NAME)
        info.size = len(description)
        writer.tarstream.addfile(info, io.BytesIO(description))
        for number, index in enumerate(indices):
            source = Path(images.name(index))
            writer.write(
                {
                    # WebDataset ends a sample's key at its first point.
                    "__key__": f"{number:06d}_{source.stem.replace('.', '_')}",
                    source.suffix[1:].lower(): source.read_bytes(),
                    "cls": str(images.target(index)).encode(),
                }
            )


if __name__ == "__main__":
    sys.exit(main())
