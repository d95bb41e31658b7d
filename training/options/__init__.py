"""The options of ``train_imagenet.py``, each in one place: what it takes, does and stands for.

The parser and ``--help``, ``config.json``, the command that repeats a run and the columns of
``training.compare`` follow from the fields of ``Options``, which stand in a file for each group of
``--help``. Nothing here imports PyTorch, so that ``--help`` answers at once; the names that it
lists are held against their registries by a test.
"""

from dataclasses import dataclass, fields

from training.options.advanced import AdvancedOptions
from training.options.augmentation import AugmentationOptions
from training.options.checkpoints import CheckpointOptions
from training.options.computing import ComputingOptions
from training.options.data import DataOptions
from training.options.network import NetworkOptions
from training.options.optimizer import OptimizerOptions
from training.options.option import GROUPS, Option
from training.options.output import OutputOptions
from training.options.processes import ProcessOptions
from training.options.recipe import RecipeOptions

__all__ = ["GROUPS", "OPTIONS", "Option", "Options", "flag_of", "title_of"]


# Dataclasses take the fields of their last base first.
@dataclass(frozen=True)
class Options(
    AdvancedOptions,
    ProcessOptions,
    OutputOptions,
    CheckpointOptions,
    ComputingOptions,
    AugmentationOptions,
    OptimizerOptions,
    RecipeOptions,
    NetworkOptions,
    DataOptions,
):
    """What a command line asks for, by the options' names; None where one was not given.

    ``dataset``, ``data``, ``workers`` and ``config_name`` depend on each other and on the data
    set: ``training.settings.Settings`` fills in those that were not given.
    """


OPTIONS: dict[str, Option] = {each.name: each.metadata["option"] for each in fields(Options)}
"""The options by the names of their fields."""


def flag_of(name: str) -> str:
    """Return an option as it is written.

    Example:
        >>> flag_of("batch_size")
        '--batch-size'
    """
    return f"--{name.replace('_', '-')}"


def title_of(name: str) -> str:
    """Return an option as it is written, and the words of what is none.

    Example:
        >>> title_of("batch_size"), title_of("train_images")
        ('--batch-size', 'train images')
    """
    return flag_of(name) if name in OPTIONS else name.replace("_", " ")
