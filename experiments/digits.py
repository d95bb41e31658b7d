"""scikit-learn's handwritten digits as tensors, and small networks trained on them."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4


@dataclass(frozen=True)
class Digits:
    """Images [N, channels, size, size], from 0 to 1, and class indices [N]."""

    images: Tensor
    targets: Tensor


def load_digits(size: int = 16, channels: int = 1) -> tuple[Digits, Digits]:
    """Return 898 digits to train on and 899 to test, a fixed and stratified split.

    E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998 (8x8 pixels of
    17 grey levels, resized by repeating them).
    """
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    digits = datasets.load_digits()
    train_images, test_images, train_targets, test_targets = train_test_split(
        digits.images, digits.target, test_size=0.5, stratify=digits.target, random_state=0
    )
    return (
        Digits(_pixels(train_images, size, channels), torch.as_tensor(train_targets)),
        Digits(_pixels(test_images, size, channels), torch.as_tensor(test_targets)),
    )


def _pixels(images: np.ndarray, size: int, channels: int) -> Tensor:
    pixels = torch.as_tensor(images, dtype=torch.float32)[:, None] / 16
    return F.interpolate(pixels, (size, size)).repeat(1, channels, 1, 1)


def train(
    model: nn.Module,
    digits: Digits,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    generator: torch.Generator,
) -> None:
    """Train ``model`` for ``epochs`` by SGD whose rate falls from ``lr`` to 0 along a cosine.

    The generator shuffles. What is left after whole batches is left out.
    """
    steps = epochs * (len(digits.targets) // batch_size)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(digits.targets), generator=generator)
        for batch in order[: steps // epochs * batch_size].split(batch_size):
            loss = F.cross_entropy(model(digits.images[batch]), digits.targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def evaluate(model: nn.Module, digits: Digits) -> tuple[float, float]:
    """Return the top-1 error in percent and the mean cross-entropy, in evaluation mode."""
    model.eval()
    logits = model(digits.images)
    wrong = (logits.argmax(1) != digits.targets).float().mean()
    return 100 * wrong.item(), F.cross_entropy(logits, digits.targets).item()
