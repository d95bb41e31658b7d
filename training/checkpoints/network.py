"""The network that a checkpoint holds, as the file alone describes it."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from models import create_model
from models.network import Network
from training.checkpoints.format import Checkpoint, class_count
from training.checkpoints.safe_file import one_line
from training.errors import UserError

OF_A_HEAD = re.compile(r"\.(ToParam\.1|head\.conv1)\.weight$")
"""A tensor of Max-Ent pooling's head, under its published and its own name."""

OF_A_GAUSSIAN_HEAD = re.compile(r"\.(ToMean\.0|head\.mean\.conv)\.weight$")
"""The same of Gaussian pooling's."""


def network_of(checkpoint: Checkpoint, pool: str | None = None) -> Network:
    """Return the network of ``checkpoint`` on the CPU, in evaluation mode.

    Architecture, pooling and number of classes are those of the file. Of a run that averaged its
    weights (``--ema``) they are the ones that validated better.

    Args:
        checkpoint: of this project or of the published implementation.
        pool: the pooling where the file does not say it, as some of the published ones do not;
            without it, what the tensors' names tell.

    Raises:
        UserError: the file names a network or a pooling that there is none of, does not tell its
            pooling, or its tensors are of another network.
    """
    pool = pool_of(checkpoint, pool)
    tensors = better_weights(checkpoint)
    try:
        with torch.device("meta"):  # no initial weights are drawn only to be overwritten
            network = create_model(checkpoint.arch, pool, class_count(tensors))
        network.to_empty(device="cpu").load_state_dict(tensors)
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{checkpoint.path}: its tensors are not those of --arch {checkpoint.arch} "
            f"--pool {pool} ({one_line(error)})"
        ) from error
    return network.eval()


def better_weights(checkpoint: Checkpoint) -> Mapping[str, Tensor]:
    """Return the tensors by name: the averaged ones where there are any and they were better."""
    if not checkpoint.averaged_is_better:
        return checkpoint.state_dict
    # Those of a torch.optim.swa_utils.AveragedModel, which counts its steps beside them.
    return {
        name.removeprefix("module."): tensor
        for name, tensor in checkpoint.ema.items()
        if name != "n_averaged"
    }


def pool_of(checkpoint: Checkpoint, pool: str | None = None) -> str:
    """Return the pooling that the file says, else ``pool``, else what the tensors' names tell.

    Raises:
        UserError: they fit several poolings, none of which has tensors.
    """
    if checkpoint.pool or pool:
        return checkpoint.pool or pool
    if any(OF_A_GAUSSIAN_HEAD.search(name) for name in checkpoint.state_dict):
        return "gauss"
    if any(OF_A_HEAD.search(name) for name in checkpoint.state_dict):
        return "max_ent"
    raise UserError(
        f"{checkpoint.path}: does not say with which pooling its network was trained; pass --pool"
    )
