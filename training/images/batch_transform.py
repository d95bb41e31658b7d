"""Transforms of whole batches on the training device, random for each sample by itself."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

CPU_BYTES = 1 << 20
"""Of floats at a time on a CPU, so that what one step leaves in the cache the next finds there, in
memory that the images before have had."""


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


class UnitRange(nn.Module):
    """Makes of 0 to 255 the floats 0 to 1, as ``torchvision.transforms.ToTensor``.

    ``v2.ToDtype`` multiplies by 1/255 instead, and differs in the last bit.
    """

    def forward(self, images: Tensor) -> Tensor:
        return images.to(torch.float32, copy=True).div_(255)


class BatchTransform(nn.Module):
    """Steps that a batch takes on the training device, one after the other; none by default.

    Args:
        steps: transforms of ``torchvision.transforms.v2`` that draw nothing, and ``PerSample``
            ones.

    Example:
        >>> from training.images.lighting import Lighting
        >>> transform = BatchTransform(UnitRange(), Lighting(0.1))
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
        result = torch.empty(images.shape, dtype=torch.float32)
        count = max(1, CPU_BYTES // (4 * images[0].numel()))
        parts = zip(*(tensor.split(count) for tensor in (images, *draws)), strict=True)
        for place, (part, *part_draws) in zip(result.split(count), parts, strict=True):
            place.copy_(self._transformed(part, part_draws))
        return result

    def _transformed(self, images: Tensor, draws: Sequence[Tensor]) -> Tensor:
        remaining = iter(draws)
        for step in self.steps:
            is_random = isinstance(step, PerSample)
            images = step(images, next(remaining)) if is_random else step(images)
        return images
