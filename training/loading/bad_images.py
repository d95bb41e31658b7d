"""Images that cannot be read: which they are, and how many a run goes without."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from training.errors import UserError
from training.processes.ranks import Process, gather_objects

ListBadImages = Callable[[Mapping[str, str], Path], None]


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be read.

    Attributes:
        name: its path, or its shard and number there; without line breaks.
        reason: what came of reading it; without line breaks and tabs.
        can_be_skipped: False where more than this image is lost, or none can take its place.
    """

    name: str
    reason: str
    can_be_skipped: bool = True

    @classmethod
    def of(cls, name: str, error: Exception, can_be_skipped: bool) -> "BadImage":
        """Return the image ``name`` that could not be read because of ``error``."""
        reason = " ".join(str(error).split()) or type(error).__name__
        return cls(" ".join(name.splitlines()), reason, can_be_skipped)


class BadImages:
    """The bad images of a data set that this process knows of, each once.

    Over a hundredth of all images is too many.

    Args:
        kind: of images, for the error.
        images: how many the data set has.
        path: the list of bad images.
        write: gives it reasons by name, before the error.
    """

    def __init__(self, kind: str, images: int, path: Path, write: ListBadImages) -> None:
        self.kind = kind
        self.images = images
        self.path = path
        self.write = write
        self.reasons: dict[str, str] = {}  # by name

    def add(self, found: Iterable[BadImage]) -> None:
        """Count ``found``, too.

        Raises:
            UserError: there are too many.
        """
        for image in found:
            self.reasons.setdefault(image.name, image.reason)
        self._check()

    def of_all(self, process: Process) -> Mapping[str, str]:
        """Return the reasons by name that any process knows of; every process must call it.

        Raises:
            UserError: there are too many, in all processes alike.
        """
        for reasons in gather_objects(self.reasons, process):
            self.reasons = reasons | self.reasons
        self._check()
        return self.reasons

    def _check(self) -> None:
        count = len(self.reasons)
        if 100 * count > self.images:
            self.write(self.reasons, self.path)
            raise UserError(
                f"--on-bad-image skip: {count} of {self.images} {self.kind} images cannot be "
                f"read, which is over 1%; replace or remove those that {self.path} lists"
            )


def skipped_of_all(data_sets: Iterable[BadImages | None], process: Process) -> dict[str, str]:
    """Return the reasons by name of the bad images of several data sets.

    None stands for one whose bad images are not skipped. Every process must call it.

    Raises:
        UserError: a data set has too many.
    """
    skipped: dict[str, str] = {}
    for bad_images in data_sets:
        if bad_images is not None:
            skipped |= bad_images.of_all(process)
    return skipped
