"""PCA lighting noise."""

import torch
from torch import Tensor

from training.images.batch_transform import PerSample

# Principal components of the RGB values of ImageNet's training images, in [0, 1]: the
# constants of fb.resnet.torch (https://github.com/facebookarchive/fb.resnet.torch,
# datasets/imagenet.lua), which the published implementation uses too.
EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)


class Lighting(PerSample):
    """Adds one random multiple of ImageNet's principal colours to each whole image.

    Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural
    Networks", 2012, section 4.1: [p1, p2, p3] [a1 l1, a2 l2, a3 l3]^T with a_i drawn from
    N(0, ``std``) once an image.

    Args:
        std: standard deviation of the a_i; 0.1 in the paper.
        inplace: change the images that it is given.

    Shape: images [N, 3, H, W] of floats in [0, 1], before normalisation, and draws [N, 3], the
    colour that each gets; the images' shape back.

    Example:
        >>> lighting = Lighting(0.0)
        >>> lighting(torch.full((1, 3, 2, 2), 0.5), lighting.draw()[None]).unique()
        tensor([0.5000])
    """

    def __init__(self, std: float, inplace: bool = False) -> None:
        super().__init__()
        self.std = std
        self.inplace = inplace

    def draw(self) -> Tensor:
        """Return the added colour, [3]."""
        weights = torch.randn(3) * self.std * torch.tensor(EIGENVALUES)
        return torch.tensor(EIGENVECTORS) @ weights

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        colours = draws.view(-1, 3, 1, 1)
        return images.add_(colours) if self.inplace else images + colours

    def extra_repr(self) -> str:
        return f"std={self.std}"
