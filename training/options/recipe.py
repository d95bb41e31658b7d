"""How it is trained."""

from dataclasses import dataclass

from training.argument_types import (
    fraction,
    natural_int,
    positive_float,
    positive_int,
    rising_ints,
    seed_int,
)
from training.options.option import option
from training.schedules import SCHEDULES


@dataclass(frozen=True)
class RecipeOptions:
    """See ``training.options.Options``."""

    config_name: str = option(
        "recipe",
        "imagenet, imagenet-a2, digits, fashion-mnist (default: the one of --dataset's name)",
        metavar="NAME",
    )
    epochs: int | None = option(
        "recipe", "(default: the recipe's)", parse=positive_int, from_recipe=True
    )
    batch_size: int | None = option(
        "recipe",
        "images a step, over all processes of this machine (default: the recipe's)",
        short="b",
        parse=positive_int,
        from_recipe=True,
    )
    lr: float | None = option(
        "recipe",
        "learning rate that the recipe's schedule starts from (default: the recipe's)",
        parse=positive_float,
        metavar="LR",
        from_recipe=True,
    )
    lr_schedule: str | None = option(
        "recipe",
        "step: a tenth after each 30 epochs; cosine: half a cosine down to 0; milestones: times "
        "--lr-gamma after each of --lr-milestones (default: the recipe's)",
        choices=tuple(SCHEDULES),
        from_recipe=True,
    )
    lr_milestones: tuple[int, ...] | None = option(
        "recipe",
        "epochs such as 30,60,80 (default: the recipe's)",
        parse=rising_ints,
        metavar="N,N",
        from_recipe=True,
    )
    lr_gamma: float | None = option(
        "recipe", "(default: the recipe's)", parse=positive_float, metavar="G", from_recipe=True
    )
    lr_per_step: bool | None = option(
        "recipe",
        "move the learning rate with each step, and not once an epoch",
        switch=True,
        from_recipe=True,
    )
    warmup_epochs: int | None = option(
        "recipe",
        "epochs in which the learning rate rises to --lr first (default: the recipe's)",
        parse=natural_int,
        from_recipe=True,
    )
    loss: str | None = option(
        "recipe",
        "in training. ce: cross-entropy; bce: binary cross-entropy of each class on its own, the "
        "mean over images and classes (default: the recipe's)",
        choices=("ce", "bce"),
        from_recipe=True,
    )
    label_smoothing: float | None = option(
        "recipe",
        "share of each target that is spread over all classes, in training (default: the recipe's)",
        parse=fraction,
        metavar="E",
        from_recipe=True,
    )
    bce_threshold: float | None = option(
        "recipe",
        "with --loss bce: a class of a mixed image whose target is above T has the target 1, any "
        "other 0 (default: the recipe's)",
        parse=fraction,
        metavar="T",
        from_recipe=True,
    )
    ema: float | None = option(
        "recipe",
        "keep a moving average of the weights, too, whose decay warms up to DECAY (0.9999); both "
        "are validated, and the better ones count",
        parse=fraction,
        bare=0.9999,
        metavar="DECAY",
    )
    seed: int | None = option(
        "recipe",
        "of everything random (default: the checkpoint's of --resume, otherwise drawn)",
        parse=seed_int,
    )
    limit_train_batches: int | None = option(
        "recipe", "end each epoch after N batches", parse=positive_int, metavar="N"
    )
    limit_val_batches: int | None = option(
        "recipe",
        "validate on the first N batches (of a folder, images of its first classes)",
        parse=positive_int,
        metavar="N",
    )
