"""Folders for the Hugging Face Hub: the network, its classes, and a page with what it came to."""

import math
from dataclasses import asdict
from pathlib import Path

from models.model_card import Measured
from models.network import Network
from models.packages import MissingPackageError
from training.checkpoints.format import Checkpoint
from training.errors import UserError
from training.export.deployment import Deployment

PREPARATION = ("image_size", "resized_to", "interpolation", "mean", "std")
"""What of a ``Deployment`` goes into ``config.json``; the rest is there already or on the page."""


def write_hub(
    network: Network, checkpoint: Checkpoint, deployment: Deployment, folder: Path
) -> str:
    """Write the folder that ``models.from_pretrained`` reads; say what was measured."""
    labels = dict(enumerate(deployment.classes))
    about = asdict(deployment)
    config = {
        **{name: about[name] for name in PREPARATION},
        "id2label": labels,
        "label2id": {label: number for number, label in labels.items()},
    }
    measured = measured_of(checkpoint)
    try:
        network.save_pretrained(folder, config=config, measured=measured)
    except MissingPackageError as error:
        raise UserError(f"--format hub: {error}") from error
    if measured is None:
        return "no figures, for none of these weights are on record"
    return f"top-1 error {measured.err1:.2f}%, top-5 error {measured.err5:.2f}%"


def measured_of(checkpoint: Checkpoint) -> Measured | None:
    """Return the validation of the weights that ``network_of`` takes.

    None where there was none: the weights of a run within an epoch are others than those that its
    last validation saw.
    """
    if checkpoint.partial_epoch is not None or not checkpoint.history:
        return None
    last = checkpoint.history[-1]
    averaged = checkpoint.averaged_is_better
    err1, err5 = (
        (last.ema_val_err1, last.ema_val_err5) if averaged else (last.val_err1, last.val_err5)
    )
    if math.isnan(err1):
        return None
    return Measured(err1=err1, err5=err5, data=validation_data(checkpoint), epoch=checkpoint.epoch)


def validation_data(checkpoint: Checkpoint) -> str | None:
    """Return the name of the data, of a part with how much; None where it is not on record.

    To the options, any folder of images is ``imagenet``.
    """
    args = checkpoint.args or {}
    data, batches = args.get("dataset"), args.get("limit_val_batches")
    if data == "imagenet":
        data = None if batches is None else "a folder of images"
    return data if data is None or batches is None else f"{data} (the first {batches} batches)"
