"""The recipe that a checkpoint was trained with, as the file alone describes it."""

from dataclasses import replace

from training.checkpoints.format import Checkpoint
from training.errors import UserError
from training.options import OPTIONS
from training.recipes import RECIPES, Recipe

PUBLISHED_RECIPE = "imagenet"
"""Of the published files, which do not name theirs otherwise."""


def recipe_of(checkpoint: Checkpoint) -> Recipe:
    """Return the recipe that ``checkpoint`` names, with what its options said instead of it.

    Raises:
        UserError: there is no recipe of that name.
    """
    args = checkpoint.args or {}
    name = args.get("config_name") or PUBLISHED_RECIPE
    if name not in RECIPES:
        raise UserError(
            f"{checkpoint.path}: was trained with the recipe {name!r}, which is not in "
            "training/recipes.py; put it back there"
        )
    given = {
        option: args[option]
        for option, entry in OPTIONS.items()
        if entry.from_recipe and args.get(option) is not None
    }
    return replace(RECIPES[name], **given)
