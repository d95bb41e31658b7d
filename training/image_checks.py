"""Which options about images go together, and with which recipes and networks."""

from collections.abc import Callable

import torch
from torch import nn

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


USUAL_SIZES = (32, 64, 128, 224)


def check_image_size(make_network: Callable[[], nn.Module], size: int, named: str) -> None:
    """Check that a network takes images of ``size`` pixels, without data and random numbers.

    Args:
        make_network: makes it.
        size: ``--image-size``.
        named: what the network is called.

    Raises:
        UserError: some layer of it does not; the message has a size that is large enough.
    """
    with torch.device("meta"):
        network = make_network().eval()
    error = _refusal(network, size)
    if error is None:
        return
    enough = next((each for each in USUAL_SIZES if _refusal(network, each) is None), None)
    way_out = "take a larger one" if enough is None else f"{enough} is large enough"
    raise UserError(f"--image-size {size}: too small for {named} ({error}); {way_out}") from error


@torch.no_grad()
def _refusal(network: nn.Module, size: int) -> Exception | None:
    try:
        network(torch.empty(2, 3, size, size, device="meta"))
    except NotImplementedError:
        return None  # an operator without a version without data
    except (RuntimeError, ValueError) as error:
        return error
    return None
