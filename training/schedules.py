"""The learning rate of each epoch: the names of ``--lr-schedule``."""

import math
from collections.abc import Callable


def step(lr: float, epoch: int, epochs: int, warmup_epochs: int) -> float:
    """Divide the learning rate by ten after each 30 epochs, however many there are."""
    return lr / 10 ** (epoch // 30)


def cosine(lr: float, epoch: int, epochs: int, warmup_epochs: int) -> float:
    """Fall to 0 along half a cosine, from the end of the warm-up on.

    I. Loshchilov and F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR
    2017, without the restarts.
    """
    return lr * 0.5 * (1 + math.cos(math.pi * (epoch - warmup_epochs) / (epochs - warmup_epochs)))


SCHEDULES: dict[str, Callable[[float, int, int, int], float]] = {"step": step, "cosine": cosine}


def learning_rate(lr: float, schedule: str, epoch: int, epochs: int, warmup_epochs: int) -> float:
    """Return the learning rate of ``epoch``, counted from 0, of ``epochs``.

    In the first ``warmup_epochs`` it rises in equal steps, to ``lr`` in the epoch after them (P.
    Goyal et al., "Accurate, Large Minibatch SGD", 2017, section 2.2, an epoch a step).

    Example:
        >>> [learning_rate(1.0, "step", epoch, 90, 3) for epoch in (0, 1, 2, 3, 30)]
        [0.25, 0.5, 0.75, 1.0, 0.1]
    """
    if epoch < warmup_epochs:
        return lr * (epoch + 1) / (warmup_epochs + 1)
    return SCHEDULES[schedule](lr, epoch, epochs, warmup_epochs)
