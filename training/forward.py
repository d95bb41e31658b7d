"""How images go through a network: their memory format and the type it computes in."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

AMP_TYPES = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""The names of ``--amp``, and the type that ``torch.autocast`` gets."""


@dataclass(frozen=True)
class Forward:
    """Calls a network on images, in training and in evaluation alike.

    Attributes:
        amp: what ``torch.autocast`` computes convolutions and products in; None leaves it off.
        memory_format: of the images; ``preserve_format`` leaves them as they are.
    """

    amp: torch.dtype | None = None
    memory_format: torch.memory_format = torch.preserve_format

    def __call__(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return the logits [N, classes], float32 whatever ``amp`` is."""
        images = images.to(memory_format=self.memory_format)
        with self.autocast(images.device):
            logits = network(images)
        return logits.float()

    def autocast(self, device: torch.device) -> torch.autocast:
        """Return the context that the network computes in on ``device``."""
        return torch.autocast(device.type, self.amp, enabled=self.amp is not None)
