"""What a resumed run does otherwise than it did so far, in words."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from training.checkpoints.format import CANNOT_BE, Checkpoint
from training.options import OPTIONS, title_of
from training.recipes import Recipe
from training.settings import Settings

OF_THE_START = ("pretrained", "weights", "start_epoch", "evaluate", "exclude")
"""Options that decide how a run starts, and of which a resumed one takes no notice."""


def differences(checkpoint: Checkpoint, settings: Settings) -> list[str]:
    """Return what of ``settings`` is not as in the checkpoint's run, a line each.

    Compared is what tells what is trained, as the recipe or the command line decided it. The file
    of another program does not say what its run was told.
    """
    if checkpoint.args is None:
        return []
    try:
        before = settings_of(checkpoint.args)
        return [*_changes(checkpoint, before, settings), *_rate_lines(checkpoint, before, settings)]
    except CANNOT_BE as error:
        return [f"what its run was told cannot be compared ({error!r})"]


def had_optimizer(checkpoint: Checkpoint, name: str) -> bool:
    """Return whether the optimizer ``name`` can go on with the checkpoint's state: it is its own.

    A published one's is SGD, and so is that of a file that does not say.
    """
    if checkpoint.args is None:
        return name == "sgd"
    try:
        return settings_of(checkpoint.args).recipe.optimizer == name
    except CANNOT_BE:
        return name == "sgd"


def settings_of(args: Mapping[str, Any]) -> Settings:
    """Return the settings that a checkpoint's ``args`` are, of a version with other options, too.

    Torchrun's machines are told as ours are.

    Raises:
        TypeError, ValueError, KeyError: they cannot be.
    """
    known = {name: args[name] for name in OPTIONS if name in args}
    torchrun = args.get("torchrun")
    if torchrun is not None:
        known["world_size"] = torchrun["world_size"] // torchrun["local_world_size"]
    return Settings(**known)


def _told(settings: Settings) -> dict[str, Any]:
    """Return by name what tells what is trained: options, and numbers of the recipe."""
    recipe = settings.recipe
    numbers = {field.name: getattr(recipe, field.name) for field in fields(Recipe)}
    numbers = {
        name: value
        for name, value in numbers.items()
        if value is None or isinstance(value, (int, float, str, tuple, list))
    }
    options = {
        name: getattr(settings, name)
        for name, option in OPTIONS.items()
        if option.tells and not option.from_recipe and name not in OF_THE_START
    }
    # --batch-size is of each machine.
    return {**options, **numbers, "number of machines": settings.machines}


def _changes(checkpoint: Checkpoint, before: Settings, now: Settings) -> Iterator[str]:
    """Yield a line for each option, or number of the recipe, that is another."""
    found = {**_told(before), "seed": checkpoint.seed}
    for name, value in _told(now).items():
        if found.get(name) != value and (name, value) != ("seed", None):
            anew = "; its state begins anew" if name == "optimizer" else ""
            yield f"{title_of(name)} was {_word(found.get(name))}, is {_word(value)}{anew}"


def _rate_lines(
    checkpoint: Checkpoint, settings: Settings, settings_now: Settings
) -> Iterator[str]:
    """Yield a line where the learning rate does not go on as it has come."""
    epoch, now = checkpoint.epoch, settings_now.learning_rates
    if epoch >= len(now):
        return
    schedule = settings.recipe.schedule
    # No more than are compared, whatever the file says how many there are.
    before = [schedule.learning_rate(each) for each in range(min(schedule.epochs, len(now)))]
    of_last = [record.lr for record in checkpoint.history[-1:]]
    as_planned = epoch < len(before) and before[epoch] == now[epoch]
    as_ever = before[:epoch] == now[:epoch]
    if not as_planned and not (as_ever and epoch >= len(before)):
        planned = f"would have been {before[epoch]:.4g}, " if epoch < len(before) else ""
        last = f", after {of_last[0]:.4g} in epoch {epoch}" if of_last else ""
        yield f"the learning rate of epoch {epoch + 1} {planned}is {now[epoch]:.4g}{last}"


def _word(value: object) -> str:
    return "not given" if value is None else str(value)
