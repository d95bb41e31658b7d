"""What a run goes on from, and evaluations."""

from dataclasses import dataclass

from training.argument_types import positive_float
from training.options.option import option


@dataclass(frozen=True)
class CheckpointOptions:
    """See ``training.options.Options``."""

    resume: str | None = option(
        "checkpoints",
        "checkpoint to continue from, or to evaluate; of this program or of the published "
        "implementation; 'auto': the newest whole one in --out-dir, none where none is there yet",
        metavar="FILE",
        tells=False,
    )
    evaluate: bool = option(
        "checkpoints",
        "print the top-1 and top-5 validation error of --resume FILE, write them to "
        "evaluation.json in --out-dir, and stop",
        default=False,
        short="e",
    )
    exclude: str | None = option(
        "checkpoints",
        "with --evaluate: leave out the images that this file lists, one file name or ILSVRC "
        "validation number a line",
        metavar="FILE",
    )
    checkpoint_minutes: float | None = option(
        "checkpoints",
        "write a checkpoint within the epoch, too, where M minutes have gone by since the last "
        "one; it takes the place of an earlier one of the epoch",
        parse=positive_float,
        metavar="M",
        tells=False,
    )
