"""Which options about images go together, and with which recipes."""

from training.errors import UserError
from training.options import Options
from training.recipes import RECIPES, Recipe


def check_images(options: Options, recipe: Recipe) -> None:
    """Check the options about images against each other and against the ``recipe`` with them.

    Raises:
        UserError: they contradict each other, or the recipe cannot follow them.
    """
    if options.val_size is not None and options.crop_pct is not None:
        raise UserError(
            f"--val-size {options.val_size} and --crop-pct {options.crop_pct}: each follows from "
            "the other and --image-size; leave one of them out"
        )
    if recipe.resized_to < recipe.image_size and RECIPES[options.config_name].crop_pct <= 1:
        raise UserError(
            f"validation images resized to {recipe.resized_to} pixels have no central crop of "
            f"--image-size {recipe.image_size}: raise --val-size, or lower --crop-pct to 1 or less"
        )
    if recipe.decode == "fast" and not recipe.crops_at_random:
        raise UserError(
            f"--decode fast: --config-name {options.config_name} takes whole images, in which "
            "there is nothing to leave out; leave the option out"
        )
    if recipe.rand_augment and recipe.trivial_augment:
        raise UserError(
            f"--rand-augment {recipe.rand_augment} and --trivial-augment {recipe.trivial_augment}: "
            "an image gets one of them; take the other one, which may be the recipe's, out with a 0"
        )
