"""What a recipe says of its images: their size, and how they are decoded, resized and augmented."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from training.images.batch_transform import BatchTransform, UnitRange
from training.images.color_jitter import ColorJitter
from training.images.decoding import Decode, DecodedCrop, decode_rgb, pixels_of
from training.images.lighting import Lighting
from training.images.policies import rand_augment
from training.images.random_erasing import RandomErasing

PilTransform = Callable[[Image.Image], Image.Image]
Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How images become what a network takes, in training and in evaluation.

    Attributes:
        train_transform, val_transform: make of the recipe the function from a decoded image to
            one of ``image_size``, both RGB images of PIL's (the latter of torchvision's tensors
            where training images are decoded fast); every random number it draws comes from
            PyTorch's generator.
        image_size: height and width of the network's input, in pixels.
        crop_pct: the share of a resized validation image that ``image_size`` is.
        val_size: what validation images are resized to; None for what ``crop_pct`` says.
        interpolation: a name of torchvision's ``InterpolationMode``; of resizing.
        decode: full, or fast: JPEGs at a lower resolution where a random crop allows it
            (``training.images.decoding.DecodedCrop``), and resized by torchvision's arithmetic of
            8 bits, which differs from PIL's by one level in some pixels.
        crops_at_random: ``train_transform`` takes a part of an image only, so that ``decode`` may
            be fast.
        mean, std: that the values in [0, 1] of red, green and blue are normalised with.
        color_jitter: strength of brightness, contrast and saturation, 0 for none.
        lighting: standard deviation of the PCA lighting noise, 0 for none.
        rand_augment: magnitude of torchvision's ``RandAugment``, 0 for none, or timm's
            configuration of its own, such as rand-m7-mstd0.5-inc1.
        trivial_augment: bins of torchvision's ``TrivialAugmentWide``, 0 for none.
        random_erasing: probability that a rectangle of an image is erased.
        repeated_augmentation: images with augmentations of their own that a batch has of a file.
        mixup, cutmix: α of the Beta distribution of their weights, 0 for none. With both, each
            batch has one of them.
    """

    train_transform: Callable[[Any], PilTransform]
    val_transform: Callable[[Any], PilTransform]
    image_size: int
    crop_pct: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    val_size: int | None = None
    interpolation: str = "bilinear"
    decode: str = "full"
    crops_at_random: bool = False
    color_jitter: float = 0.0
    lighting: float = 0.0
    rand_augment: int | str = 0
    trivial_augment: int = 0
    random_erasing: float = 0.0
    repeated_augmentation: int = 1
    mixup: float = 0.0
    cutmix: float = 0.0

    @property
    def resized_to(self) -> int:
        """What validation images are resized to: ``val_size``, or by ``crop_pct`` as in timm."""
        return self.val_size or math.floor(self.image_size / self.crop_pct)

    @property
    def interpolation_mode(self) -> InterpolationMode:
        return InterpolationMode(self.interpolation)

    @property
    def train_decode(self) -> Decode:
        """From an opened training image to the RGB image for ``train_transform``."""
        return DecodedCrop(self.image_size) if self.decode == "fast" else decode_rgb

    def train_steps(self, on_cpu: bool) -> tuple[Transform, BatchTransform]:
        """Return what the worker processes and then the training device do to training images.

        A GPU adjusts colours faster; where training is ``on_cpu``, PIL does it in the workers.
        The images are the same, to the last bit.
        """
        pil_steps, steps = self._policy(), []
        if self.color_jitter:
            strengths = [self.color_jitter] * 3
            if on_cpu:
                pil_steps.append(v2.ColorJitter(*strengths))
            else:
                steps.append(ColorJitter(*strengths))
        steps.append(UnitRange())
        if self.lighting:
            steps.append(Lighting(self.lighting, inplace=True))
        steps.append(v2.Normalize(self.mean, self.std, inplace=True))
        if self.random_erasing:
            steps.append(RandomErasing(self.random_erasing, self.image_size))
        if pil_steps and self.decode == "fast":
            pil_steps.insert(0, v2.ToPILImage())
        in_worker = [self.train_transform(self), *pil_steps, pixels_of]
        return v2.Compose(in_worker), BatchTransform(*steps)

    def val_steps(self) -> tuple[Transform, BatchTransform]:
        """Return what the worker processes and then the device do to validation images."""
        normalize = v2.Normalize(self.mean, self.std, inplace=True)
        in_worker = v2.Compose([self.val_transform(self), pixels_of])
        return in_worker, BatchTransform(UnitRange(), normalize)

    def _policy(self) -> list[PilTransform]:
        """Return the augmentation policy, if there is one."""
        if self.trivial_augment:
            return [v2.TrivialAugmentWide(self.trivial_augment, self.interpolation_mode)]
        if not self.rand_augment:
            return []
        setting, mode = self.rand_augment, self.interpolation_mode
        return [rand_augment(setting, self.image_size, mean=self.mean, interpolation=mode)]
