"""Checkpoints as the published code writes them: https://github.com/tk1980/GFGP, and
…/GaussianPooling."""

import argparse
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from models.pooling import GAUSSIAN_POOL_TYPES, PUBLISHED_POOL_TYPES, published_pool
from models.state_dict import published_state_dict
from training.checkpoints.format import Checkpoint
from training.checkpoints.optimizer_state import load_optimizer
from training.checkpoints.recipe import PUBLISHED_RECIPE
from training.errors import UserError
from training.export.deployment import Deployment
from training.recipes import RECIPES
from training.records.history import stats_from_history


def published_content(
    network: nn.Module, checkpoint: Checkpoint, deployment: Deployment
) -> dict[str, Any]:
    """Return what the published code would have saved: the same names, shapes and their order.

    Args:
        network: that of ``checkpoint``; from now on its state dict has the published names.
        checkpoint: its epochs, statistics and optimizer are taken.
        deployment: added to the ``args``.

    Raises:
        UserError: the published code has no such pooling.
    """
    pool, pools = published_pool(deployment.pool), (*PUBLISHED_POOL_TYPES, *GAUSSIAN_POOL_TYPES)
    if pool not in pools:
        raise UserError(
            f"--format published: the published code has no pooling {deployment.pool}, only "
            f"{', '.join(pools)}; choose another format"
        )
    stats = stats_from_history(checkpoint.history)
    args = checkpoint.args or {}
    return {
        "epoch": checkpoint.epoch,
        "arch": checkpoint.arch,
        "state_dict": published_state_dict(network),
        "stats": {key: stats[key] for key in stats if key.startswith(("train_", "test_"))},
        "optimizer": published_optimizer(network, checkpoint),
        "args": argparse.Namespace(**{**args, **asdict(deployment), "pool": pool}),
    }


def published_optimizer(network: nn.Module, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the state of the published optimizer, SGD, its parameters in ``network``'s order.

    It has no momentum where ``has_published_optimizer`` is false.
    """
    recipe = RECIPES[PUBLISHED_RECIPE]
    sgd = torch.optim.SGD(
        network.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay
    )
    if not has_published_optimizer(checkpoint):
        return sgd.state_dict()
    load_optimizer(sgd, network, checkpoint)
    (its_group,) = checkpoint.optimizer["param_groups"]
    state = sgd.state_dict()
    return {
        "state": state["state"],
        "param_groups": [{**its_group, "params": state["param_groups"][0]["params"]}],
    }


def has_published_optimizer(checkpoint: Checkpoint) -> bool:
    """Return whether the optimizer is SGD, and of the weights that are taken."""
    optimizer = checkpoint.optimizer
    return (
        not checkpoint.averaged_is_better
        and all("dampening" in group for group in optimizer["param_groups"])
        and all(state.keys() <= {"momentum_buffer"} for state in optimizer["state"].values())
    )
