"""Training and evaluation, one process and one thread of PyTorch a run."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.pooling_study.tasks import Images
from training.optimizer import parameters_of_poolings
from training.seeding import derive_seed

MOMENTUM, WEIGHT_DECAY, WARMUP_EPOCHS = 0.9, 5e-4, 1
EVALUATION_BATCH = 500


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        width: channels of its first stage.
        epochs: passes over the training images.
        batch_size: images a step; what is left after whole batches is left out.
        lr: the learning rate that the first epoch rises to, and from which a cosine falls to 0.
    """

    width: int
    epochs: int
    batch_size: int
    lr: float

    def steps(self, images: Images) -> int:
        """Return the steps of an epoch."""
        return len(images) // self.batch_size

    def lr_at(self, progress: float) -> float:
        """Return the learning rate after ``progress`` epochs."""
        if progress < WARMUP_EPOCHS:
            return self.lr * progress / WARMUP_EPOCHS
        share = (progress - WARMUP_EPOCHS) / (self.epochs - WARMUP_EPOCHS)
        return self.lr * (1 + math.cos(math.pi * share)) / 2


@dataclass(frozen=True)
class Score:
    """Mean cross-entropy, and top-1 error in percent."""

    loss: float
    error: float


def make_optimizer(network: nn.Module, decays: bool) -> torch.optim.SGD:
    """Return SGD; λ and heads have the learning rate of all other parameters, as published.

    Args:
        network: to train.
        decays: whether weight decay acts on the poolings' parameters, too.
    """
    of_poolings = parameters_of_poolings(network)
    others = [each for each in network.parameters() if each not in of_poolings]
    groups = [{"params": others}]
    if of_poolings:
        kept = [each for each in network.parameters() if each in of_poolings]
        groups.append({"params": kept, "weight_decay": WEIGHT_DECAY if decays else 0.0})
    return torch.optim.SGD(groups, lr=0.0, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)


def batches_of(
    images: Images, recipe: Recipe, seed: int, done: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Return images and targets of each step of the epoch after ``done``.

    They are the same for every network. Each image is mirrored or not, and moved by up to its
    margin.
    """
    random = torch.Generator().manual_seed(derive_seed(seed, "pass", done))
    order = torch.randperm(len(images), generator=random)
    drawn = []
    for which in order.split(recipe.batch_size)[: recipe.steps(images)]:
        moves = torch.randint(-images.margin, images.margin + 1, (2, len(which)), generator=random)
        mirrored = torch.rand(len(which), generator=random) < 0.5
        # All of an epoch at once: a step that had to wait for a copy would keep a GPU waiting.
        drawn.append([each.to(images.targets.device) for each in (which, moves, mirrored)])
    for which, moves, mirrored in drawn:
        yield images.cut(which, *moves, mirrored), images.targets[which]


def train_epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Images,
    recipe: Recipe,
    seed: int,
    done: int,
) -> Score:
    """Train for the epoch after ``done`` of them; return its means, of the images as seen."""
    network.train()
    # For a pooling that draws noise.
    torch.manual_seed(derive_seed(seed, "noise", done))
    loss_sum = wrong = torch.zeros((), device=images.targets.device)
    steps = recipe.steps(images)
    for step, (batch, targets) in enumerate(batches_of(images, recipe, seed, done)):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr_at(done + (step + 1) / steps)
        logits = network(batch.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_sum = loss_sum + loss.detach()
        wrong = wrong + (logits.argmax(1) != targets).sum()
    seen = steps * recipe.batch_size
    return Score(loss=loss_sum.item() / steps, error=100 * wrong.item() / seen)


@torch.no_grad()
def evaluate(network: nn.Module, images: Images, distance: int = 0) -> Score:
    """Return the means over ``images``, by turns moved by ``distance`` down, right, up and left."""
    network.eval()
    device = images.targets.device
    loss_sum = wrong = torch.zeros((), device=device)
    directions = torch.tensor([(1, 0), (0, 1), (-1, 0), (0, -1)], device=device) * distance
    for which in images.indices.split(EVALUATION_BATCH):
        moves = directions[which % len(directions)].T
        logits = network(images.cut(which, *moves).contiguous(memory_format=torch.channels_last))
        targets = images.targets[which]
        loss_sum = loss_sum + F.cross_entropy(logits, targets, reduction="sum")
        wrong = wrong + (logits.argmax(1) != targets).sum()
    return Score(loss=loss_sum.item() / len(images), error=100 * wrong.item() / len(images))
