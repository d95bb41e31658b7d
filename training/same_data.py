"""Whether processes that train together have found the same images, each on its own machine."""

import socket

from training.errors import UserError
from training.images.datasets import Data
from training.processes.ranks import Process, gather_objects


def check_same_data(data: Data, origin: str, process: Process) -> None:
    """Check that every process has found the same ``data``; every process must call it.

    Args:
        data: what this process has found.
        origin: the option that says where, for the error.
        process: this process.

    Raises:
        UserError: not so; in every process, and about the first that differs from the main one.
    """
    (main_machine, main), *others = gather_objects((socket.gethostname(), facts_of(data)), process)
    for rank, (machine, facts) in enumerate(others, start=1):
        # Numbers come first: where they are the same, so are the lengths of the lists.
        for fact, of_main in zip(facts, main, strict=False):
            if fact != of_main:
                raise UserError(
                    f"{origin}: process {rank} (on {machine}) has found {fact}, the main process "
                    f"(on {main_machine}) {of_main}; each machine needs the same images: copy "
                    "them anew, or put them where all machines see them"
                )


def facts_of(data: Data) -> list[str]:
    """Return what can be told of ``data`` without opening an image, in words."""
    splits = {"validation": data.val}
    if data.train is not None:
        splits["training"] = data.train
    return [
        *(f"{len(images)} {split} images" for split, images in splits.items()),
        f"{len(data.classes)} classes",
        *(f"a class {name!r}" for name in data.classes),
        *(
            f"{split} images whose names and classes have the checksum {images.checksum():08x}"
            for split, images in splits.items()
        ),
    ]
