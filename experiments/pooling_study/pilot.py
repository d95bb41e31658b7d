"""Runs under max pooling by the study's recipes, to see how far these train.

``python experiments/guided_pooling.py pilot`` makes them. They learn from five sixths of the
training images and are scored on the rest, never on test images.
"""

from dataclasses import dataclass

import torch

from experiments.pooling_study.networks import create_network
from experiments.pooling_study.tasks import TASKS, Images
from experiments.pooling_study.training import Recipe, evaluate, make_optimizer, train_epoch

SEED = 1000  # none of the study's


@dataclass(frozen=True)
class PilotRow:
    """An epoch of a run of the pilot.

    Attributes:
        task, network: as in the study; the pooling is max.
        width, epochs, batch_size, lr: of the recipe.
        done: epochs so far, this one among them.
        train_loss, train_error: means over the epoch, of the images as they were seen.
        held_out_loss, held_out_error: after it, of the images held out, in percent.
    """

    task: str
    network: str
    width: int
    epochs: int
    batch_size: int
    lr: float
    done: int
    train_loss: float
    train_error: float
    held_out_loss: float
    held_out_error: float


def pilot_run(task: str, network: str, recipe: Recipe, data: str) -> list[PilotRow]:
    """Train ``network`` on most of the training images of ``task``; see ``Setting.data``."""
    learned, held_out = split(TASKS[task](data).train)
    model = create_network(network, recipe.width, "max", SEED).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(model, decays=True)
    rows = []
    for done in range(recipe.epochs):
        train = train_epoch(model, optimizer, learned, recipe, SEED, done)
        score = evaluate(model, held_out)
        rows.append(
            PilotRow(
                task=task,
                network=network,
                width=recipe.width,
                epochs=recipe.epochs,
                batch_size=recipe.batch_size,
                lr=recipe.lr,
                done=done + 1,
                train_loss=round(train.loss, 4),
                train_error=round(train.error, 2),
                held_out_loss=round(score.loss, 4),
                held_out_error=round(score.error, 2),
            )
        )
    return rows


def split(images: Images) -> tuple[Images, Images]:
    """Return the first five sixths of ``images`` and the rest."""
    at = len(images) * 5 // 6
    return (
        Images(images.images[:at], images.targets[:at], images.margin),
        Images(images.images[at:], images.targets[at:], images.margin),
    )
