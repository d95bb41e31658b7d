"""The learning rate over a run: the names of ``--lr-schedule``, and the warm-up before them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """How the learning rate goes over a run.

    Attributes:
        name: of ``SCHEDULES``.
        lr: what it starts from, after the warm-up.
        epochs: of the whole run.
        warmup_epochs: epochs in which it rises to ``lr`` first.
        milestones, gamma: after each of these epochs, ``milestones`` multiplies it by ``gamma``.
    """

    name: str
    lr: float
    epochs: int
    warmup_epochs: int = 0
    milestones: Sequence[int] = ()
    gamma: float = 0.1

    def learning_rate(self, epoch: float, length: float = 1.0) -> float:
        """Return the learning rate from ``epoch`` on, counted from 0, for ``length`` of an epoch.

        With a step's share of an epoch as ``length`` it is that of the step.

        In the first ``warmup_epochs`` it rises in equal steps, one each ``length``, to ``lr`` in
        the step after them (P. Goyal et al., "Accurate, Large Minibatch SGD", 2017, section 2.2).

        Example:
            >>> schedule = Schedule("step", lr=1.0, epochs=90, warmup_epochs=3)
            >>> [schedule.learning_rate(epoch) for epoch in (0, 1, 2, 3, 30)]
            [0.25, 0.5, 0.75, 1.0, 0.1]
            >>> [schedule.learning_rate(step / 2, length=1 / 2) for step in (0, 2, 6)]
            [0.14285714285714285, 0.42857142857142855, 1.0]
        """
        if epoch < self.warmup_epochs:
            return self.lr * (epoch + length) / (self.warmup_epochs + length)
        return SCHEDULES[self.name](self, epoch)


def step(schedule: Schedule, epoch: float) -> float:
    """Divide the learning rate by ten after each 30 epochs, however many there are."""
    return schedule.lr / 10 ** (epoch // 30)


def cosine(schedule: Schedule, epoch: float) -> float:
    """Fall to 0 along half a cosine, from the end of the warm-up on.

    I. Loshchilov and F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR
    2017, without the restarts.
    """
    warmup_epochs = schedule.warmup_epochs
    share = (epoch - warmup_epochs) / (schedule.epochs - warmup_epochs)
    return schedule.lr * 0.5 * (1 + math.cos(math.pi * share))


def milestones(schedule: Schedule, epoch: float) -> float:
    """Multiply the learning rate by ``gamma`` after each milestone, as PyTorch's MultiStepLR."""
    passed = sum(epoch >= milestone for milestone in schedule.milestones)
    return schedule.lr * schedule.gamma**passed


SCHEDULES: dict[str, Callable[[Schedule, float], float]] = {
    "step": step,
    "cosine": cosine,
    "milestones": milestones,
}
