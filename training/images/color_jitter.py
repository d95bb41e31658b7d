"""Random brightness, contrast and saturation of batches."""

import torch
from torch import Tensor
from torchvision.transforms import v2

from training.images.batch_transform import PerSample

BRIGHTNESS, CONTRAST, SATURATION = range(3)  # as v2.ColorJitter numbers its operations
RED, GREEN, BLUE = 19595, 38470, 7471  # ITU-R BT.601 luma in units of 1 / 65536, as in PIL


class ColorJitter(PerSample):
    """``torchvision.transforms.ColorJitter`` of PIL images, to the last bit, for whole batches.

    Each of the three operations blends the image with another one: black (brightness), its mean
    grey (contrast) or its grey version (saturation). That makes them one formula, which takes a
    batch whose samples differ in factors and order through three steps without a loop.

    Args:
        brightness, contrast, saturation: as in ``torchvision.transforms.v2.ColorJitter``, whose
            draws these are.

    Shape: images [N, 3, H, W] of uint8, draws [N, 2, 3]; uint8 [N, 3, H, W] back.

    Example:
        >>> jitter = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4)
        >>> images = torch.full((2, 3, 4, 4), 100, dtype=torch.uint8)
        >>> jitter(images, torch.stack([jitter.draw(), jitter.draw()])).shape
        torch.Size([2, 3, 4, 4])
    """

    def __init__(self, brightness: float, contrast: float, saturation: float) -> None:
        super().__init__()
        self.parameters_of = v2.ColorJitter(brightness, contrast, saturation)

    def draw(self) -> Tensor:
        """Return [2, 3]: the operations' numbers in their order, and the factor of each."""
        drawn = self.parameters_of.make_params([])
        names = ("brightness_factor", "contrast_factor", "saturation_factor")
        order = [operation for operation in drawn["fn_idx"].tolist() if operation < len(names)]
        return torch.tensor([order, [drawn[names[operation]] for operation in order]])

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        pixels = images.float()
        for step in range(3):
            operation, factor = draws[:, :, step].view(-1, 2, 1, 1, 1).unbind(1)
            grey = grey_levels(pixels)
            mean = grey.mean((1, 2, 3), keepdim=True, dtype=torch.float64).add_(0.5).floor_()
            other = torch.where(operation == SATURATION, grey, mean.float())
            other = other.mul_(operation != BRIGHTNESS)
            pixels.sub_(other).mul_(factor).add_(other).clamp_(0, 255).floor_()
        return pixels.byte()


def grey_levels(pixels: Tensor) -> Tensor:
    """Return PIL's mode L, [N, 1, H, W], of ``pixels`` [N, 3, H, W], both whole float32 numbers.

    All sums stay below 2**24 and are exact, as their mean over an image is in float64: nothing
    depends on an order of summation, hence on the batch.
    """
    red, green, blue = pixels.split(1, dim=1)
    weighted = (red * RED).add_(green, alpha=GREEN).add_(blue, alpha=BLUE)
    return weighted.add_(1 << 15).mul_(2.0**-16).floor_()
