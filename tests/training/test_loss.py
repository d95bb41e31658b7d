"""The losses of ``--loss`` against their formulas, and against timm's."""

from dataclasses import replace

import pytest
import timm.loss
import torch
from torch.nn.functional import one_hot

from training.loading.batches import Batch
from training.loss import training_loss
from training.recipes import RECIPES

RECIPE = RECIPES["imagenet"]


@pytest.fixture
def logits():
    return 3 * torch.randn(6, 5)


def batch(soft_targets=None):
    return Batch(torch.zeros(6, 3, 2, 2), torch.tensor([0, 4, 2, 2, 1, 3]), 6, soft_targets)


def mixed():
    """Targets of images of which the first is of one class, the others of two."""
    shares = torch.tensor([1.0, 0.9, 0.5, 0.3, 0.1, 0.05])[:, None]
    return shares * one_hot(batch().targets, 5) + (1 - shares) * one_hot(torch.arange(6) % 5, 5)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("soft", [False, True])
def test_cross_entropy(logits, smoothing, soft):
    content = batch(mixed() if soft else None)
    targets = mixed() if soft else one_hot(batch().targets, 5)
    targets = (1 - smoothing) * targets + smoothing / 5
    expected = -(targets * logits.log_softmax(1)).sum(1).mean()
    loss = training_loss(logits, content, replace(RECIPE, label_smoothing=smoothing))
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("soft", [False, True])
def test_binary_cross_entropy(logits, smoothing, soft):
    """The mean over images and classes of -t log s(x) - (1 - t) log(1 - s(x))."""
    content = batch(mixed() if soft else None)
    targets = mixed() if soft else one_hot(batch().targets, 5)
    targets = (1 - smoothing) * targets + smoothing / 5
    rest = (1 - targets) * (1 - logits.sigmoid()).log()
    expected = -(targets * logits.sigmoid().log() + rest).mean()
    loss = training_loss(logits, content, replace(RECIPE, loss="bce", label_smoothing=smoothing))
    torch.testing.assert_close(loss, expected)
    if not soft:
        theirs = timm.loss.BinaryCrossEntropy(smoothing=smoothing)(logits, content.targets)
        torch.testing.assert_close(loss, theirs)


@pytest.mark.parametrize("threshold", [0.0, 0.2])
def test_binary_cross_entropy_of_classes_that_are_there(logits, threshold):
    recipe = replace(RECIPE, loss="bce", bce_threshold=threshold)
    loss = training_loss(logits, batch(mixed()), recipe)
    theirs = timm.loss.BinaryCrossEntropy(smoothing=0.0, target_threshold=threshold)
    torch.testing.assert_close(loss, theirs(logits, mixed()))
    # 0.1 of an image is there for a threshold of 0 alone.
    there = [1, 2, 1, 2, 2, 2] if threshold == 0 else [1, 1, 1, 2, 1, 1]
    assert (mixed() > threshold).sum(1).tolist() == there


def test_threshold_comes_before_smoothing(logits):
    """An absent class, whose smoothed target is 0.06, stays below a threshold of 0 all the same."""
    recipe = replace(RECIPES["imagenet-a2"], label_smoothing=0.3)
    targets = (mixed() > 0) * 0.7 + 0.06
    rest = (1 - targets) * (1 - logits.sigmoid()).log()
    expected = -(targets * logits.sigmoid().log() + rest).mean()
    torch.testing.assert_close(training_loss(logits, batch(mixed()), recipe), expected)


def test_parts_have_their_own_soft_targets():
    whole = batch(mixed())
    parts = whole.split(4)
    assert [len(part.targets) for part in parts] == [2, 2, 1, 1]
    assert all(part.global_size == 6 for part in parts)
    assert torch.equal(torch.cat([part.soft_targets for part in parts]), whole.soft_targets)
    assert torch.equal(torch.cat([part.targets for part in parts]), whole.targets)
