"""Random erasing of batches."""

import torch
from torch import Tensor
from torchvision.transforms import v2

from training.images.batch_transform import PerSample


class RandomErasing(PerSample):
    """``torchvision.transforms.v2.RandomErasing`` with its defaults, for whole batches.

    Z. Zhong, L. Zheng, G. Kang, S. Li and Y. Yang, "Random Erasing Data Augmentation", 2020. Of
    normalised images, what is erased becomes 0: the mean colour.

    Args:
        probability: of an image to lose a rectangle.
        image_size: height and width of the images, in pixels.

    Shape: images [N, 3, H, W], draws [N, 4]: top, left, bottom and right of the rectangles, all 0
    where nothing is erased; the images' shape back.

    Example:
        >>> erasing = RandomErasing(1.0, image_size=32)
        >>> erased = erasing(torch.ones(1, 3, 32, 32), erasing.draw()[None])
        >>> 0 < (erased == 0).float().mean() < 0.5
        tensor(True)
    """

    def __init__(self, probability: float, image_size: int) -> None:
        super().__init__()
        self.probability = probability
        self.image_size = image_size
        self.parameters_of = v2.RandomErasing()

    def draw(self) -> Tensor:
        if torch.rand(()) >= self.probability:
            return torch.zeros(4, dtype=torch.int64)
        image = torch.empty(3, self.image_size, self.image_size)
        drawn = self.parameters_of.make_params([image])
        if drawn["v"] is None:  # no rectangle of ten fits
            return torch.zeros(4, dtype=torch.int64)
        top, left, height, width = (drawn[name] for name in "ijhw")
        return torch.tensor([top, left, top + height, left + width])

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        top, left, bottom, right = draws.view(-1, 4, 1, 1, 1).unbind(1)
        row = torch.arange(images.shape[2], device=images.device).view(-1, 1)
        column = torch.arange(images.shape[3], device=images.device)
        erased = (row >= top) & (row < bottom) & (column >= left) & (column < right)
        return images.masked_fill(erased, 0)

    def extra_repr(self) -> str:
        return f"probability={self.probability}, image_size={self.image_size}"
