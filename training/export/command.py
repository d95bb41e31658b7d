"""The export of a checkpoint, from the command line's words to the file."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn

from models.network import Network
from training.atomic_write import WriteError, atomic_write
from training.checkpoints.format import Checkpoint, load_checkpoint
from training.checkpoints.network import network_of, pool_of
from training.errors import UserError
from training.export.deployment import Deployment, deployment_of
from training.export.hub import write_hub
from training.export.packages import imported
from training.export.programs import write_archive, write_onnx
from training.export.published import has_published_optimizer, published_content

Writer = Callable[[Network, Checkpoint, Deployment, Path], str]


def export(
    checkpoint_path: str, out: str, format: str, pool: str | None, image_size: int | None
) -> str:
    """Write the network of a checkpoint to ``out``; return what was written, in a line.

    A program, ONNX or pt2, is checked against the network before it takes ``out``'s place.

    Args:
        checkpoint_path: of this project or of the published implementation.
        out: the file; the folder of the format hub.
        format: a key of ``WRITERS``.
        pool: the pooling where the file does not say it.
        image_size: height and width of the images in pixels; None for those of the recipe.

    Raises:
        UserError: the checkpoint cannot be read or is of another network, a package is missing,
            the file cannot be written, or it does not compute what the network does.
    """
    checkpoint = load_checkpoint(checkpoint_path, option="the checkpoint")
    network = network_of(checkpoint, pool)
    deployment = deployment_of(checkpoint, pool_of(checkpoint, pool), image_size)
    path = Path(out)
    try:
        with nullcontext(path) if format == "hub" else atomic_write(path) as place:
            checked = WRITERS[format](network, checkpoint, deployment, place)
    except (WriteError, OSError) as error:
        reason = error.__cause__ if isinstance(error, WriteError) else error
        raise UserError(f"{out}: cannot be written ({reason}); choose another") from error
    taken = ", the averaged weights" if checkpoint.averaged_is_better else ""
    return (
        f"{out}: {deployment.arch} with pooling {deployment.pool}, epoch {deployment.epoch}"
        f"{taken}, {len(deployment.classes)} classes, images {deployment.image_size}x"
        f"{deployment.image_size}; {checked}"
    )


def write_published(
    network: Network, checkpoint: Checkpoint, deployment: Deployment, path: Path
) -> str:
    """Write a checkpoint of the published code; return what there is of its optimizer."""
    content = published_content(network, checkpoint, deployment)
    with path.open("wb") as file:
        torch.save(content, file)
    if has_published_optimizer(checkpoint):
        return "with the optimizer's state"
    return "no state of the optimizer, which is not SGD of these weights"


def write_safetensors(
    network: Network, checkpoint: Checkpoint, deployment: Deployment, path: Path
) -> str:
    """Write the tensors under our own names, with ``deployment`` as metadata; say how many."""
    files = imported("safetensors.torch", "--format safetensors")
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    path.write_bytes(files.save(tensors, metadata=deployment.as_texts()))
    return f"{len(tensors)} tensors"


def write_program(
    write: Callable[[nn.Module, Deployment, Path], str],
) -> Writer:
    """Return ``write`` as the other formats are called."""
    return lambda network, _, deployment, path: write(network, deployment, path)


WRITERS: dict[str, Writer] = {
    "published": write_published,
    "onnx": write_program(write_onnx),
    "pt2": write_program(write_archive),
    "safetensors": write_safetensors,
    "hub": write_hub,
}
"""What writes each format; returns what is to say of it."""
