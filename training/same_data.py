"""Whether processes that train together have found the same images, each on its own machine."""

import socket
import zlib

from training.errors import UserError
from training.images.datasets import Data
from training.processes.ranks import Process, errors_shared, gather_objects


def check_same_data(data: Data, origin: str, process: Process) -> None:
    """Check that every process has found the same ``data``; every process must call it.

    Args:
        data: what this process has found.
        origin: the option that says where, for the error.
        process: this process.

    Raises:
        UserError: not so, or a file cannot be read; in every process, and about the first one
            that differs from the main one.
    """
    if process.world_size == 1:
        return
    with errors_shared(process):
        here = socket.gethostname(), facts_of(data)
    (main_machine, main), *others = gather_objects(here, process)
    for rank, (machine, facts) in enumerate(others, start=1):
        for fact, of_main in zip(facts, main, strict=True):
            if fact != of_main:
                raise UserError(
                    f"{origin}: process {rank} (on {machine}) has found {fact}, the main process "
                    f"(on {main_machine}) {of_main}; each machine needs the same images: copy "
                    "them anew, or put them where all machines see them"
                )


def facts_of(data: Data) -> list[str]:
    """Return what can be told of ``data`` without opening an image, in words.

    Raises:
        UserError: a file of it cannot be read.
    """
    splits = {"validation": data.val}
    if data.train is not None:
        splits["training"] = data.train
    return [
        *(f"{len(images)} {split} images" for split, images in splits.items()),
        f"{len(data.classes)} classes",
        # Of names by the thousand, which every process would send to every other one.
        f"classes whose names have the checksum {zlib.crc32(repr(data.classes).encode()):08x}",
        *(
            f"{split} images whose names, classes or files have the checksum "
            f"{images.checksum():08x}"
            for split, images in splits.items()
        ),
    ]
