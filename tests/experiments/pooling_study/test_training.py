"""Training and evaluation of the study's networks."""

import math

import pytest
import torch

from experiments.pooling_study.tasks import Images
from experiments.pooling_study.training import Recipe, batches_of, evaluate, train_epoch
from tests.experiments.pooling_study.images import random_images


def test_learning_rate_rises_in_the_first_epoch_and_falls_along_a_cosine():
    recipe = Recipe(width=8, epochs=5, batch_size=4, lr=0.2)
    found = [recipe.lr_at(progress) for progress in (0.25, 1, 2, 3, 5)]
    cosine = [0.1 * (1 + math.cos(math.pi * share)) for share in (0, 0.25, 0.5, 1)]
    assert found == pytest.approx([0.05, *cosine])


def test_batches_are_those_of_seed_and_epoch_and_hold_each_image_once():
    images, recipe = random_images(50), Recipe(8, 3, 8, 0.1)
    first = list(batches_of(images, recipe, seed=1, done=0))
    assert len(first) == recipe.steps(images) == 6
    assert all(batch.shape == (8, 1, 16, 16) for batch, _ in first)
    torch.rand(5)  # whatever a network draws
    for again, expected in zip(batches_of(images, recipe, 1, 0), first, strict=True):
        assert all(torch.equal(*pair) for pair in zip(again, expected, strict=True))
    for seed, done in ((1, 1), (2, 0)):
        other, _ = next(batches_of(images, recipe, seed, done))
        assert not torch.equal(other, first[0][0])
    marked = Images(
        torch.arange(40).byte()[:, None, None, None].expand(40, 1, 8, 8), torch.zeros(40), 2
    )
    seen = torch.cat([batch[:, 0, 0, 0] for batch, _ in batches_of(marked, recipe, 1, 0)])
    assert len(seen.unique()) == 40


def test_epoch_by_hand():
    recipe = Recipe(width=8, epochs=3, batch_size=8, lr=0.2)
    images = random_images(50)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16 * 16, 10))
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    frozen = torch.optim.SGD(network.parameters(), lr=0.0)
    for group in frozen.param_groups:
        group["params"] = []
    found = train_epoch(network, frozen, images, recipe, seed=0, done=1)
    # Whatever it sees, all classes are as likely and the first is chosen.
    seen = torch.cat([targets for _, targets in batches_of(images, recipe, seed=0, done=1)])
    assert found.loss == pytest.approx(math.log(10))
    assert found.error == pytest.approx(100 * (seen != 0).double().mean().item())
    assert [group["lr"] for group in frozen.param_groups] == [recipe.lr_at(2)]


def test_evaluation_by_hand():
    class Says(torch.nn.Module):
        """The logit of 1 is the first pixel."""

        def forward(self, images):
            return torch.stack([torch.zeros(len(images)), images[:, 0, 0, 0]], dim=1)

    images = torch.zeros(4, 1, 6, 6, dtype=torch.uint8)  # what is seen begins at (2, 2)
    images[:, 0, 1, 2] = 255  # there if moved down
    targets = torch.tensor([1, 0, 0, 1])
    found = Images(images, targets, margin=2)
    # Every image is dark, -1, unless it is moved down by one: the first of the four.
    assert evaluate(Says(), found).error == 50
    assert evaluate(Says(), found, distance=1).error == 25
    right, wrong = math.log(1 + math.exp(-1)), math.log(1 + math.e)
    assert evaluate(Says(), found).loss == pytest.approx((2 * right + 2 * wrong) / 4)
