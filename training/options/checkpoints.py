"""What a run goes on from, and evaluations."""

from dataclasses import dataclass

from training.argument_types import path_or_none, positive_float
from training.options.option import option


@dataclass(frozen=True)
class CheckpointOptions:
    """See ``training.options.Options``."""

    resume: str | None = option(
        "checkpoints",
        "checkpoint to continue from, or to evaluate; of this program or of the published "
        "implementation; 'auto': the newest whole one in --out-dir, none where none is there yet",
        parse=path_or_none,
        metavar="FILE",
        tells=False,
    )
    evaluate: bool = option(
        "checkpoints",
        "print the top-1 and top-5 validation error of --resume FILE, or of --weights or "
        "--pretrained, and stop; in --out-dir: evaluation.json, evaluation_classes.csv, "
        "confused_pairs.csv, confusion.csv and its picture",
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
