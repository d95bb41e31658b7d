"""The recipe that a checkpoint was trained with, as the file alone describes it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

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
    recipe = recipe_of_args(args)
    if recipe is None:
        raise UserError(
            f"{checkpoint.path}: was trained with the recipe {args['config_name']!r}, which is not "
            "in training/recipes.py; put it back there"
        )
    return recipe


def recipe_of_args(args: Mapping[str, Any]) -> Recipe | None:
    """Return the recipe that the options ``args`` of a run name, with what they say instead of it.

    None where there is no recipe of that name.
    """
    name = args.get("config_name") or PUBLISHED_RECIPE
    if name not in list(RECIPES):
        return None
    given = {
        option: args[option]
        for option, entry in OPTIONS.items()
        if entry.from_recipe and args.get(option) is not None
    }
    return replace(RECIPES[name], **given)
