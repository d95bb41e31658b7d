"""Augmentation policies: some of many operations, drawn for each image."""

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import InterpolationMode, v2

from training.errors import UserError

TRANSLATED_SHARE = 0.45
"""Of an image's side, that timm's policies move it by at most: timm.data.create_transform."""


def rand_augment(
    setting: int | str,
    image_size: int,
    mean: Sequence[float],
    interpolation: InterpolationMode,
) -> nn.Module:
    """Return RandAugment on PIL images.

    E. D. Cubuk, B. Zoph, J. Shlens and Q. V. Le, "RandAugment: Practical automated data
    augmentation with a reduced search space", 2020.

    Args:
        setting: the magnitude of torchvision's, which does two operations; or the configuration
            of timm's, such as rand-m7-mstd0.5-inc1.
        image_size, mean: of the images, for timm's: how far it moves them, and what colour shows.
        interpolation: where it turns or shears them.

    Raises:
        UserError: the package timm is missing, or there is no such configuration.
    """
    if isinstance(setting, int):
        return v2.RandAugment(magnitude=setting, interpolation=interpolation)
    try:
        from timm.data.auto_augment import posterize, rand_augment_transform
        from timm.data.transforms import str_to_pil_interp
    except ModuleNotFoundError as error:
        raise UserError(
            f"--rand-augment {setting}: needs a package: pip install timm ({error})"
        ) from error
    parameters = {
        "translate_const": int(image_size * TRANSLATED_SHARE),
        "img_mean": tuple(round(255 * value) for value in mean),
        "interpolation": str_to_pil_interp(interpolation.value),
    }
    try:
        policy = rand_augment_transform(setting, parameters)
    except (AssertionError, ValueError) as error:
        raise UserError(
            f"--rand-augment {setting}: timm knows no such configuration ({error}); an example is "
            "rand-m7-mstd0.5-inc1"
        ) from error
    for operation in policy.ops:
        if operation.aug_fn is posterize:
            operation.level_fn = partial(at_least_one_bit, operation.level_fn)
    return TimmPolicy(policy)


def at_least_one_bit(
    bits: Callable[[float, Any], tuple[int]], magnitude: float, parameters: Any
) -> tuple[int]:
    """Return what ``bits`` does of timm's magnitude, but 1 for less, which Pillow refuses."""
    return (max(1, *bits(magnitude, parameters)),)


class TimmPolicy(nn.Module):
    """A policy of timm's, whose random numbers follow from PyTorch's generator.

    timm draws from the generators of Python and NumPy, which are left as they were.

    Args:
        policy: from PIL image to PIL image.
    """

    def __init__(self, policy: Callable[[Image.Image], Image.Image]) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, image: Image.Image) -> Image.Image:
        seed = int(torch.randint(2**32, ()))
        of_python, of_numpy = random.getstate(), np.random.get_state()
        random.seed(seed)
        np.random.seed(seed)
        try:
            return self.policy(image)
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)
