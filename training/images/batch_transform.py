"""Transforms of whole batches on the training device, random for each sample by itself."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

CPU_IMAGES = 4
"""So many at a time on a CPU, so that what one step leaves in the cache the next finds there."""


class PerSample(nn.Module, ABC):
    """A transform of a batch in which every sample has random numbers of its own.

    The numbers are drawn beside the decoding, from PyTorch's generator that is seeded for the
    sample there; the arithmetic waits for the batch. So a sample's result depends on neither the
    other samples of its batch nor the process that decoded it.
    """

    @abstractmethod
    def draw(self) -> Tensor:
        """Return the random numbers of one sample, in a tensor of the same shape each time."""

    @abstractmethod
    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        """Transform ``images`` [N, 3, H, W] by ``draws`` [N, ...], one of ``draw`` for each."""


class BatchTransform(nn.Module):
    """Steps that a batch takes on the training device, one after the other; none by default.

    Args:
        steps: transforms of ``torchvision.transforms.v2`` that draw nothing, and ``PerSample``
            ones.

    Example:
        >>> from torchvision.transforms import v2
        >>> from training.images.lighting import Lighting
        >>> transform = BatchTransform(v2.ToDtype(torch.float32, scale=True), Lighting(0.1))
        >>> images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
        >>> samples = [transform.draw() for image in images]
        >>> transform(images, [torch.stack(draws) for draws in zip(*samples)]).dtype
        torch.float32
    """

    def __init__(self, *steps: nn.Module) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def draw(self) -> list[Tensor]:
        """Return the random numbers of one sample, a tensor for each ``PerSample`` step."""
        return [step.draw() for step in self.steps if isinstance(step, PerSample)]

    def forward(self, images: Tensor, draws: Sequence[Tensor]) -> Tensor:
        """Return ``images`` [N, 3, H, W] transformed; ``draws`` are those of ``draw``, stacked."""
        if images.device.type != "cpu" or not self.steps:
            return self._transformed(images, draws)
        parts = zip(*(tensor.split(CPU_IMAGES) for tensor in (images, *draws)), strict=True)
        return torch.cat([self._transformed(part, part_draws) for part, *part_draws in parts])

    def _transformed(self, images: Tensor, draws: Sequence[Tensor]) -> Tensor:
        remaining = iter(draws)
        for step in self.steps:
            is_random = isinstance(step, PerSample)
            images = step(images, next(remaining)) if is_random else step(images)
        return images
