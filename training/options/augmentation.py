"""What is done to the training images beyond the recipe's crops and colours."""

from dataclasses import dataclass

from training.argument_types import (
    bin_count,
    natural_float,
    positive_int,
    probability,
    rand_augment_setting,
)
from training.options.option import option


@dataclass(frozen=True)
class AugmentationOptions:
    """See ``training.options.Options``."""

    mixup: float | None = option(
        "augmentation",
        "mix each image with another one of its process's batch, and their targets likewise; ALPHA "
        "is of the Beta distribution of the weights, 0 for none (default: the recipe's)",
        parse=natural_float,
        metavar="ALPHA",
        from_recipe=True,
    )
    cutmix: float | None = option(
        "augmentation",
        "cut a rectangle of another image into each; with --mixup, each batch has one of the two "
        "(default: the recipe's)",
        parse=natural_float,
        metavar="ALPHA",
        from_recipe=True,
    )
    rand_augment: int | str | None = option(
        "augmentation",
        "RandAugment: a magnitude up to 30 (9) for torchvision's, 0 for none, or what configures "
        "timm's, such as rand-m7-mstd0.5-inc1 (default: the recipe's)",
        parse=rand_augment_setting,
        bare=9,
        metavar="M",
        from_recipe=True,
    )
    trivial_augment: int | None = option(
        "augmentation",
        "torchvision's TrivialAugment with N magnitudes (31), 0 for none (default: the recipe's)",
        parse=bin_count,
        bare=31,
        from_recipe=True,
    )
    random_erasing: float | None = option(
        "augmentation",
        "probability that a rectangle of an image is erased (default: the recipe's)",
        parse=probability,
        metavar="P",
        from_recipe=True,
    )
    repeated_augmentation: int | None = option(
        "augmentation",
        "take each image N times in a row, each time augmented otherwise, and so a different Nth "
        "of the images in each epoch (default: the recipe's)",
        parse=positive_int,
        from_recipe=True,
    )
