"""The loss that training minimises: the names of ``--loss``."""

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

from training.loading.batches import Batch
from training.recipes import Recipe


def training_loss(logits: Tensor, batch: Batch, recipe: Recipe) -> Tensor:
    """Return the mean loss over the images of ``batch``, a scalar.

    Args:
        logits: [N, classes].
        batch: what they are of; its soft targets, where it has any, take the place of the classes.
        recipe: says which loss, and how the targets are smoothed.
    """
    targets = batch.targets if batch.soft_targets is None else batch.soft_targets
    return LOSSES[recipe.loss](logits, targets, recipe)


def softmax_loss(logits: Tensor, targets: Tensor, recipe: Recipe) -> Tensor:
    """Return the cross-entropy of one distribution over the classes."""
    return cross_entropy(logits, targets, label_smoothing=recipe.label_smoothing)


def sigmoid_loss(logits: Tensor, targets: Tensor, recipe: Recipe) -> Tensor:
    """Return the binary cross-entropy of each class on its own, the mean over images and classes.

    As ``timm.loss.BinaryCrossEntropy`` has it for R. Wightman et al., "ResNet strikes back", 2021,
    section 3.1: a target above ``recipe.bce_threshold``, where that is given, counts as 1 and any
    other as 0, so that each class of a mixed image is wholly there. Smoothing comes after it; in
    timm before it, so that a threshold below the smoothed target of an absent class makes all 1.

    Example:
        >>> import torch
        >>> from training.recipes import RECIPES
        >>> sigmoid_loss(torch.zeros(2, 5), torch.tensor([0, 3]), RECIPES["imagenet"])
        tensor(0.6931)
    """
    classes = logits.shape[1]
    if targets.dim() == 1:
        targets = one_hot(targets, classes)
    if recipe.bce_threshold is not None:
        targets = targets > recipe.bce_threshold
    smoothing = recipe.label_smoothing
    targets = targets.to(logits.dtype) * (1 - smoothing) + smoothing / classes
    return binary_cross_entropy_with_logits(logits, targets)


LOSSES: dict[str, Callable[[Tensor, Tensor, Recipe], Tensor]] = {
    "ce": softmax_loss,
    "bce": sigmoid_loss,
}
