"""Images in WebDataset shards: tar files that are read from their start, wherever they lie.

The package webdataset is imported where shards are read: no other run needs it.
"""

import functools
import importlib.util
import io
import itertools
import json
import os
import tarfile
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from training.errors import UserError
from training.images import shard_order
from training.images.datasets import BrokenSource, Data
from training.processes.ranks import Process, errors_shared, gather_objects

DESCRIPTION_NAME = "__description__/shard.json"
"""The first file of the shards of ``training.write_shards``; WebDataset takes it for no sample."""

BEGINNING = 2**16
"""Bytes of a shard that are compared: the description of 1,000 classes, and images behind it."""

READ_ERRORS = (OSError, tarfile.TarError, EOFError, ValueError)


@dataclass(frozen=True)
class Shard:
    """What a shard holds.

    Attributes:
        url: a path, ``pipe:COMMAND`` or ``http://...``, as WebDataset opens it.
        samples: how many images.
        classes: the names of all classes of the data set.
        classes_have_names: False where they are but the numbers that were found in it.
    """

    url: str
    samples: int
    classes: tuple[str, ...]
    classes_have_names: bool = True


@dataclass(frozen=True)
class EncodedImage:
    """An image file's bytes, and its class index."""

    content: bytes
    target: int


class ShardImages:
    """The images of several shards, counted through them in turn.

    An image is found by reading its shard up to it: that is fast for images that are asked for
    in the order of ``training.images.shard_order``, a window of which is held in memory.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = shards
        self.starts = [0, *itertools.accumulate(shard.samples for shard in shards)]
        self.window: dict[int, EncodedImage] = {}
        self.samples: Iterator[EncodedImage] = iter(())
        self.reading: int | None = None  # the number of the shard that ``samples`` come from
        self.next_index = 0  # of ``samples``

    def __len__(self) -> int:
        return self.starts[-1]

    @property
    def shard_sizes(self) -> list[int]:
        return [shard.samples for shard in self.shards]

    def image(self, index: int) -> Image.Image:
        return Image.open(io.BytesIO(self._encoded(index).content))

    def target(self, index: int) -> int:
        return self._encoded(index).target

    def name(self, index: int) -> str:
        number = self._shard_of(index)
        return f"{self.shards[number].url}, image {index - self.starts[number] + 1}"

    def checksum(self) -> int:
        files = [fingerprint(shard.url) for shard in self.shards]
        return zlib.crc32(repr((self.shard_sizes, files)).encode())

    def _shard_of(self, index: int) -> int:
        return bisect_right(self.starts, index) - 1

    def _encoded(self, index: int) -> EncodedImage:
        if index not in self.window:
            try:
                self._read_window_of(index)
            except READ_ERRORS as error:
                raise BrokenSource(str(error)) from error
        return self.window[index]

    def _read_window_of(self, index: int) -> None:
        number = self._shard_of(index)
        start, end = self.starts[number], self.starts[number + 1]
        first = index - (index - start) % shard_order.WINDOW
        last = min(first + shard_order.WINDOW, end)
        if self.reading != number or self.next_index > first:
            self.samples, self.next_index = read_samples(self.shards[number].url), start
        self.reading = None  # after an error the shard is not read on, but from its start
        self.window = {}
        for position in range(self.next_index, last):
            sample = next(self.samples, None)
            if sample is None:
                raise OSError(f"the shard ends before it, after {position - start} images")
            if position >= first:
                self.window[position] = sample
        self.reading, self.next_index = number, last


def fingerprint(url: str) -> tuple[int, int] | None:
    """Return the length of a shard and a checksum of its beginning; None if it is no file here.

    What a shard holds may have been told by another machine, which has a file of its own there.

    Raises:
        UserError: it cannot be read.
    """
    from webdataset.gopen import rewrite_url

    url = rewrite_url(url)
    address = urlparse(url)
    if address.scheme not in ("", "file") or url == "-":
        return None
    try:
        with open(url2pathname(address.path) if address.scheme else url, "rb") as file:
            return os.fstat(file.fileno()).st_size, zlib.crc32(file.read(BEGINNING))
    except OSError as error:
        raise UserError(
            f"{url} cannot be read ({error}); see that each machine has all shards"
        ) from error


def read_samples(url: str) -> Iterator[EncodedImage]:
    """Yield the images of a shard.

    Raises:
        OSError: the shard cannot be read, or a sample has no image or no class.
    """
    from webdataset.tariterators import tarfile_samples

    try:
        for sample in tarfile_samples([{"url": url}]):
            yield encoded_image(sample)
    except (tarfile.TarError, EOFError) as error:
        raise OSError(f"the shard cannot be read on: {error}") from error


def encoded_image(sample: dict[str, Any]) -> EncodedImage:
    """Return the image and the class of a sample of WebDataset's.

    Raises:
        OSError: one of them is missing, or the class is no number.
    """
    kinds = [kind for kind in sample if f".{kind}" in IMG_EXTENSIONS]
    if not kinds or not sample.get("cls", b"").strip().isdigit():
        raise OSError(f"{sample['__key__']}: needs an image and a class number in a file .cls")
    return EncodedImage(sample[kinds[0]], int(sample["cls"]))


def load_shards(train_urls: str | None, val_urls: str, process: Process) -> Data:
    """Return the images in shards such as ``shards/train-{0000..0156}.tar``.

    The shards of ``training.write_shards`` say what they hold; others are read once to count it,
    each by one of the processes. Every process must call it.

    Args:
        train_urls, val_urls: paths, ``pipe:`` commands or addresses of http, with braces that
            are expanded; None without the training images.
        process: this process.

    Raises:
        UserError: the package webdataset is missing, a shard cannot be read, or shards disagree
            about the classes.
    """
    urls = {"--val-data": val_urls, **({} if train_urls is None else {"--data": train_urls})}
    with errors_shared(process):
        check_webdataset(f"--val-data {val_urls}")
        names = {f"{option} {each}": expanded(option, each) for option, each in urls.items()}
        share = described_share(names, process)
    # Nothing is exchanged from here on: what is raised, this process may raise alone.
    known = {url: shard for part in gather_objects(share, process) for url, shard in part.items()}
    val, *rest = [described_shards(of_one, where, known) for where, of_one in names.items()]
    train = rest[0] if rest else None
    classes = max((shard.classes for shard in (train or val)), key=len)
    for shard in (*(train or ()), *val):
        if shard.classes != classes[: len(shard.classes)]:
            raise UserError(f"{shard.url}: its classes are not those of the other shards")
    return Data(
        train=ShardImages(train) if train is not None else None,
        val=ShardImages(val),
        classes=classes,
        classes_have_names=all(shard.classes_have_names for shard in (*(train or ()), *val)),
    )


def check_webdataset(named: str) -> None:
    """Raise UserError if the package for shards, some of which are ``named``, is missing."""
    if importlib.util.find_spec("webdataset") is None:
        raise UserError(f"{named}: shards need a package: pip install webdataset")


def expanded(option: str, urls: str) -> list[str]:
    """Return the names of the shards that ``urls``, of ``option``, is short for."""
    from webdataset.shardlists import expand_urls

    try:
        return expand_urls(urls)
    except ValueError as error:
        raise UserError(f"{option} {urls}: {error}") from error


def described_share(names: Mapping[str, Sequence[str]], process: Process) -> dict[str, Shard]:
    """Return what this process's share of the shards hold, by their names.

    Args:
        names: those of all shards, by the option that names them.
        process: this process.
    """
    return {
        url: described(url, where)
        for where, urls in names.items()
        for url in urls[process.rank :: process.world_size]
    }


def described_shards(urls: Sequence[str], where: str, known: Mapping[str, Shard]) -> list[Shard]:
    """Return the shards ``urls``: the ``known`` ones, and others, which are read.

    Those are the ones that this process alone has been told of.
    """
    shards = [known[url] if url in known else described(url, where) for url in urls]
    if not any(shard.samples for shard in shards):
        raise UserError(f"{where}: no images in there")
    return shards


def described(url: str, where: str) -> Shard:
    """Return what the shard at ``url`` says of itself, or what is found in it.

    Raises:
        UserError: it cannot be read; ``where`` it was named.
    """
    try:
        return _described(url)
    except READ_ERRORS as error:
        raise UserError(
            f"{where}: {url} cannot be read as a shard ({error}); see that all of them are there, "
            "and whole"
        ) from error


def _described(url: str) -> Shard:
    from webdataset.gopen import gopen

    with tarfile.open(fileobj=gopen(url), mode="r|*") as tar:
        first = tar.next()
        if first is not None and first.name == DESCRIPTION_NAME:
            content = json.load(tar.extractfile(first))
            return Shard(url, content["samples"], _one_of(tuple(content["classes"])))
    targets = [sample.target for sample in read_samples(url)]
    classes = tuple(str(number) for number in range(max(targets, default=-1) + 1))
    return Shard(url, len(targets), _one_of(classes), classes_have_names=False)


@functools.cache
def _one_of(classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the same tuple for all that are equal, so that shards by the thousand hold one."""
    return classes
