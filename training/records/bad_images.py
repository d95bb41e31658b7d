"""``bad_images.txt``: the images that a run has gone without."""

from collections.abc import Mapping
from pathlib import Path

from training.atomic_write import atomic_write

BAD_IMAGES_NAME = "bad_images.txt"


def list_bad_images(reasons: Mapping[str, str], path: Path) -> None:
    """Add bad images to the list ``path``: a line each, with its name, a tab and the reason.

    What is listed already stays as it is, and is not listed again. Without images nothing is done.

    Raises:
        UserError: the file cannot be written.
    """
    if not reasons:
        return
    # A file name may hold bytes that are no UTF-8.
    encoding = {"encoding": "utf-8", "errors": "surrogateescape"}
    with atomic_write(path) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text(**encoding).splitlines() if path.exists() else []
        listed = {line.rpartition("\t")[0] for line in lines}
        lines += [f"{name}\t{reasons[name]}" for name in sorted(reasons.keys() - listed)]
        temporary.write_text("".join(f"{line}\n" for line in lines), **encoding)
