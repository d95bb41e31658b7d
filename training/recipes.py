"""The named recipes of ``--config-name``.

Add one to ``RECIPES`` and the command line takes it; ``training.options`` names it in the help.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torchvision.transforms import v2

from training.images.preparation import PilTransform, Preparation
from training.schedules import Schedule

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Recipe(Preparation):
    """How to train.

    Attributes:
        batch_size: images a step, over all processes of a machine.
        epochs: number of epochs.
        lr: the learning rate that ``lr_schedule`` starts from.
        lr_schedule: a name of ``training.schedules.SCHEDULES``.
        warmup_epochs: epochs in which the learning rate rises to ``lr`` first.
        momentum, weight_decay: of the optimizer, as in ``torch.optim.SGD``.
        lr_milestones, lr_gamma: of the schedule ``milestones``, see ``Schedule``.
        lr_per_step: the learning rate moves with each step, and not once an epoch.
        optimizer, opt_betas, opt_eps: see ``training.optimizer``; None leaves the optimizer's own.
        weight_decay_on: ``"all"`` parameters, or ``"weights"`` alone, which are neither of norms
            nor biases nor of poolings.
        head_lr: learning rate of the poolings' own parameters, as a multiple.
        clip_grad: the largest norm of the gradient; a longer one is shortened to it.
        loss, label_smoothing, bce_threshold: see ``training.loss``.
    """

    batch_size: int
    epochs: int
    lr: float
    lr_schedule: str
    warmup_epochs: int
    momentum: float
    weight_decay: float
    lr_milestones: Sequence[int] = ()
    lr_gamma: float = 0.1
    lr_per_step: bool = False
    optimizer: str = "sgd"
    opt_betas: Sequence[float] | None = None
    opt_eps: float | None = None
    weight_decay_on: str = "all"
    head_lr: float = 1.0
    clip_grad: float | None = None
    loss: str = "ce"
    label_smoothing: float = 0.0
    bce_threshold: float | None = None

    @property
    def schedule(self) -> Schedule:
        """How the learning rate goes over the run."""
        return Schedule(
            name=self.lr_schedule,
            lr=self.lr,
            epochs=self.epochs,
            warmup_epochs=self.warmup_epochs,
            milestones=self.lr_milestones,
            gamma=self.lr_gamma,
        )

    def learning_rate(self, epoch: int, batch: int, batches: int) -> float:
        """Return the learning rate of a step: of ``batch``, from 0, of the ``epoch``'s ``batches``.

        Without ``lr_per_step`` it is that of the epoch.
        """
        if not self.lr_per_step:
            return self.schedule.learning_rate(epoch)
        return self.schedule.learning_rate(epoch + batch / batches, length=1 / batches)

    def learning_rates(self) -> list[float]:
        """Return the learning rate of each epoch, at its start where it moves with each step.

        Example:
            >>> RECIPES["imagenet"].learning_rates()[28:32]
            [0.1, 0.1, 0.01, 0.01]
        """
        return [self.schedule.learning_rate(epoch) for epoch in range(self.epochs)]


def imagenet_train_transform(recipe: Preparation) -> PilTransform:
    size, mode = recipe.image_size, recipe.interpolation_mode
    if recipe.decode == "fast":  # which leaves a crop to resize
        cropped = [v2.PILToTensor(), v2.Resize((size, size), mode)]
    else:
        cropped = [v2.RandomResizedCrop(size, interpolation=mode)]
    return v2.Compose([*cropped, v2.RandomHorizontalFlip()])


def imagenet_val_transform(recipe: Preparation) -> PilTransform:
    resized = v2.Resize(recipe.resized_to, recipe.interpolation_mode)
    return v2.Compose([resized, v2.CenterCrop(recipe.image_size)])


def digits_train_transform(recipe: Preparation) -> PilTransform:
    mode = recipe.interpolation_mode
    moved = v2.RandomAffine(
        degrees=10, translate=(0.1, 0.1), scale=(0.9, 1.1), shear=10, interpolation=mode
    )
    resized = v2.Resize((recipe.image_size, recipe.image_size), mode)
    return v2.Compose([resized, moved])


def fashion_mnist_train_transform(recipe: Preparation) -> PilTransform:
    size = recipe.image_size * 28 // 32  # whatever validation images are resized to
    resized = v2.Resize((size, size), recipe.interpolation_mode)
    shifted = v2.RandomCrop(recipe.image_size, padding=recipe.image_size // 8)
    mirrored = v2.RandomHorizontalFlip()
    return v2.Compose([resized, mirrored, shifted])


def small_image_val_transform(recipe: Preparation) -> PilTransform:
    resized = v2.Resize((recipe.resized_to, recipe.resized_to), recipe.interpolation_mode)
    # A black margin where that is the smaller one.
    return v2.Compose([resized, v2.CenterCrop(recipe.image_size)])


def small_image_recipe(**others: Any) -> Recipe:
    """Return what the recipes for small images have in common, with ``others``."""
    return Recipe(
        val_transform=small_image_val_transform,
        image_size=32,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        lr_schedule="cosine",
        warmup_epochs=1,
        momentum=0.9,
        weight_decay=5e-4,
        **others,
    )


RESNET_STRIKES_BACK_A2: dict[str, Any] = {
    "batch_size": 2048,
    "epochs": 300,
    "optimizer": "lamb",
    "lr": 5e-3,
    "lr_schedule": "cosine",
    "warmup_epochs": 5,
    "momentum": 0.9,  # not LAMB's
    "weight_decay": 0.02,
    "weight_decay_on": "weights",  # timm's default, which the procedure was run with
    "loss": "bce",
    "bce_threshold": 0.0,  # section 3.1: each class of a mixed image has the target 1
}
"""Optimizer and loss of procedure A2 of R. Wightman, H. Touvron, H. Jégou, "ResNet strikes back: An
improved training procedure in timm", 2021, table 2; no label smoothing, and no gradient clipping
but LAMB's own: timm's shortens the gradient to a norm of 1.
"""

RECIPES = {
    # The published recipe, unchanged: https://github.com/tk1980/GFGP, imagenet_config.py.
    "imagenet": Recipe(
        batch_size=256,
        epochs=120,
        lr=0.1,
        lr_schedule="step",
        warmup_epochs=0,
        momentum=0.9,
        weight_decay=1e-4,
        train_transform=imagenet_train_transform,
        val_transform=imagenet_val_transform,
        image_size=224,
        crop_pct=224 / 256,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        crops_at_random=True,
        color_jitter=0.4,
        lighting=0.1,
    ),
    # Procedure A2 of R. Wightman, H. Touvron and H. Jégou, "ResNet strikes back: An improved
    # training procedure in timm", 2021, table 2, without its stochastic depth of 0.05, which these
    # networks have not.
    "imagenet-a2": Recipe(
        **RESNET_STRIKES_BACK_A2,
        train_transform=imagenet_train_transform,
        val_transform=imagenet_val_transform,
        image_size=224,
        crop_pct=0.95,
        interpolation="bicubic",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        crops_at_random=True,
        rand_augment="rand-m7-mstd0.5-inc1",
        repeated_augmentation=3,
        mixup=0.1,
        cutmix=1.0,
    ),
    # 32x32 images of a few thousand small digits, in minutes on two CPU cores.
    "digits": small_image_recipe(
        train_transform=digits_train_transform, crop_pct=1.0, batch_size=32, epochs=5, lr=0.01
    ),
    # 28x28 images in a black margin of 32x32, shifted and mirrored.
    "fashion-mnist": small_image_recipe(
        train_transform=fashion_mnist_train_transform,
        crop_pct=32 / 28,
        batch_size=128,
        epochs=30,
        lr=0.1,
    ),
}
