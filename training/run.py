"""What the parts of a run have in common: what is asked for, which process this is, the seed."""

from dataclasses import dataclass

from training.processes.ranks import Process
from training.settings import Settings


@dataclass(frozen=True)
class Run:
    """A run as one of its processes sees it.

    Attributes:
        settings: what was asked for.
        process: this process.
        seed: everything random follows from it; the same in all processes.
        classes: the names of the network's outputs, as far as they have any.
        lineage: see ``training.checkpoints.format.Checkpoint``.
    """

    settings: Settings
    process: Process
    seed: int
    classes: tuple[str, ...] | None = None
    lineage: tuple[tuple[int, int], ...] = ()
