"""What has to travel with a network's weights for it to be used elsewhere."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from models.readable import readable
from training.checkpoints.format import Checkpoint, class_count
from training.checkpoints.recipe import recipe_of
from training.recipes import Recipe


@dataclass(frozen=True)
class Deployment:
    """How to make a network's input, and what its output means.

    The input is [N, 3, ``image_size``, ``image_size``], float32, RGB: an image resized to
    ``resized_to`` (its shorter side; small images of other recipes: both), the middle cut out, its
    values from 0 to 1, less ``mean``, divided by ``std``. The output is [N, number of classes],
    logits.

    Attributes:
        arch, pool: the network, as ``models.create_model`` takes it.
        classes: the names of the outputs, as text that UTF-8 can hold; ``class 0`` and so on where
            the file has none.
        image_size: height and width of the input, in pixels.
        resized_to: what validation images were resized to before, in pixels.
        interpolation: of resizing, a name of torchvision's ``InterpolationMode``.
        mean, std: of red, green and blue.
        epoch: epochs that the network was trained for.
    """

    arch: str
    pool: str
    classes: tuple[str, ...]
    image_size: int
    resized_to: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    epoch: int

    def as_texts(self) -> dict[str, str]:
        """Return each value by its name: texts as they are, all others as JSON.

        Example:
            >>> deployment = Deployment(
            ...     *("resnet18", "max_ent", ("cat", "dog"), 32, 36, "bilinear"),
            ...     *((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 5),
            ... )
            >>> deployment.as_texts()["classes"]
            '["cat", "dog"]'
            >>> Deployment.of_texts(deployment.as_texts()) == deployment
            True
        """
        return {
            name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for name, value in asdict(self).items()
        }

    @classmethod
    def of_texts(cls, texts: Mapping[str, str]) -> "Deployment":
        """Return what ``as_texts`` was made of."""
        values: dict[str, Any] = {}
        for name, kind in cls.__annotations__.items():
            text = texts[name]
            value = text if kind is str else json.loads(text)
            values[name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)


def deployment_of(checkpoint: Checkpoint, pool: str, image_size: int | None) -> Deployment:
    """Return what goes with the network of ``checkpoint``, whose pooling is ``pool``.

    Args:
        checkpoint: of this project or of the published implementation.
        pool: the network's pooling.
        image_size: height and width of the network's input; None for those of its recipe.

    Raises:
        UserError: its recipe is not there any more.
    """
    recipe = recipe_of(checkpoint)
    outputs = class_count(checkpoint.state_dict)
    names = tuple(map(readable, checkpoint.classes or ()))[:outputs]
    size = image_size or recipe.image_size
    return Deployment(
        arch=checkpoint.arch,
        pool=pool,
        classes=(*names, *(f"class {number}" for number in range(len(names), outputs))),
        image_size=size,
        resized_to=resized_to_of(recipe, size),
        interpolation=recipe.interpolation,
        mean=recipe.mean,
        std=recipe.std,
        epoch=checkpoint.epoch,
    )


def resized_to_of(recipe: Recipe, image_size: int) -> int:
    """Return what validation images are resized to for ``image_size``, as evaluation does it.

    A size that ``recipe`` was told (``--val-size``) keeps its proportion to the recipe's own.

    Example:
        >>> from training.recipes import RECIPES
        >>> resized_to_of(RECIPES["imagenet"], 256), 256 * 256 / 224
        (292, 292.57142857142856)
    """
    if recipe.val_size is None:
        return replace(recipe, image_size=image_size).resized_to
    return round(recipe.val_size * image_size / recipe.image_size)
