"""From an opened image file to RGB pixels: all of them, or those that a random crop needs."""

import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from training.images.eight_bits import eight_bits

Decode = Callable[[Image.Image], Image.Image]


def decode_rgb(image: Image.Image) -> Image.Image:
    """Return the whole of an opened image, in RGB; see ``eight_bits`` for more than eight bits.

    Raises:
        OSError, SyntaxError, ValueError: the file is damaged, if only near its end, or has
            values of an unknown range.
    """
    image.load()  # otherwise decoded where the pixels are first used, and by then without a name
    return image if image.mode == "RGB" else eight_bits(image).convert("RGB")


def pixels_of(image: Image.Image | Tensor) -> Tensor:
    """Return the pixels [3, H, W] of an RGB image in uint8; a tensor as it is.

    Channel after channel in memory: torchvision's ``PILToTensor`` leaves them pixel by pixel, which
    takes longer to stack.
    """
    if isinstance(image, Tensor):
        return image
    return torch.from_numpy(np.stack([np.asarray(channel) for channel in image.split()]))


class DecodedCrop:
    """Returns the part of an opened image that ``RandomResizedCrop`` chooses, not yet resized.

    A JPEG whose crop has at least twice ``size`` pixels each way is decoded at a half, a quarter
    or an eighth of its resolution, for which libjpeg needs less time; ``size`` pixels each way are
    always left.

    Args:
        size: height and width that the crop will be resized to.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.chooser = v2.RandomResizedCrop(size)

    def __call__(self, image: Image.Image) -> Image.Image:
        crop = self.chooser.make_params([image])
        width, height = image.size
        # PIL decodes at the lowest resolution that gives the whole image this size.
        image.draft(
            "RGB",
            (
                math.ceil(width * self.size / crop["width"]),
                math.ceil(height * self.size / crop["height"]),
            ),
        )
        across, down = image.width / width, image.height / height
        left, top = round(crop["left"] * across), round(crop["top"] * down)
        right = round((crop["left"] + crop["width"]) * across)
        bottom = round((crop["top"] + crop["height"]) * down)
        return decode_rgb(image).crop((left, top, right, bottom))
