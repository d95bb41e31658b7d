"""The names of the classes: which output of a checkpoint's network each class of the data is."""

from collections.abc import Sequence
from dataclasses import replace

from training.errors import UserError, shortened
from training.images.datasets import Data, relabelled

SHORT = 6


def check_classes(
    origin: str, of_checkpoint: Sequence[str], of_data: Sequence[str], subset: bool = True
) -> list[int]:
    """Return the index in ``of_checkpoint`` of each class of the data, by its name.

    Args:
        origin: where the checkpoint's names are from, for the error: ``--resume FILE``.
        of_checkpoint: the names of the network's outputs, as far as they have any.
        of_data: the names of the data's classes, in any order.
        subset: some classes of the checkpoint may be missing in the data.

    Raises:
        UserError: the data has other classes.

    Example:
        >>> check_classes("--resume f", ["cat", "dog", "owl"], ["owl", "cat"])
        [2, 0]
    """
    numbers = {name: number for number, name in enumerate(of_checkpoint)}
    fits = numbers.keys() >= set(of_data) if subset else numbers.keys() == set(of_data)
    if not fits:
        raise UserError(
            f"{origin}: was trained on other classes than the data's: "
            f"{_both(of_checkpoint, of_data)}; pass the data that it was trained on"
        )
    return [numbers[name] for name in of_data]


def with_classes_of(
    data: Data, origin: str, of_checkpoint: Sequence[str] | None, subset: bool
) -> Data:
    """Return ``data`` with the classes of a checkpoint in its order, matched by their names.

    Classes of the data that have only numbers are those of the same numbers. Without names of the
    checkpoint's classes the data is returned as it is.

    Raises:
        UserError: see ``check_classes``.
    """
    if of_checkpoint is None:
        return data
    if data.classes_have_names:
        numbers = check_classes(origin, of_checkpoint, data.classes, subset)
        return relabelled(data, numbers, tuple(of_checkpoint))
    own, its = len(data.classes), len(of_checkpoint)
    if own == its or (subset and own < its):
        return replace(data, classes=tuple(of_checkpoint), classes_have_names=True)
    return data


def line_of_classes(origin: str, of_checkpoint: Sequence[str] | None, data: Data) -> str | None:
    """Return what to tell of how the classes of ``data`` were found among a checkpoint's.

    Nothing where both have the same names in the same order.

    Args:
        origin: where the checkpoint's names are from: ``--resume FILE``.
        of_checkpoint: the names of the network's outputs, None of a file without any.
        data: with its own classes.
    """
    if of_checkpoint is None:
        how = "the file has no names of classes: taken in their order, unchecked"
    elif not data.classes_have_names:
        how = "the data's classes have no names: taken in their order, unchecked"
    elif data.classes == tuple(of_checkpoint):
        return None
    elif len(data.classes) == len(of_checkpoint):
        how = "classes in another order than the checkpoint's: matched by their names"
    else:
        how = (
            f"classes: {len(data.classes)} of the checkpoint's {len(of_checkpoint)}, matched by "
            "their names"
        )
    return f"{origin}: {how}"


def _both(of_checkpoint: Sequence[str], of_data: Sequence[str]) -> str:
    """Return both lists; of long ones, the names that only one of them has."""
    if max(len(of_checkpoint), len(of_data)) <= SHORT:
        return f"{', '.join(of_checkpoint)}; not {', '.join(of_data)}"
    shared = set(of_checkpoint) & set(of_data)
    only_checkpoint = [name for name in of_checkpoint if name not in shared]
    only_data = [name for name in of_data if name not in shared]
    return (
        f"of its {len(of_checkpoint)}, {_count(only_checkpoint)} not in the data; of the data's "
        f"{len(of_data)}, {_count(only_data)} not in the checkpoint"
    )


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} ({shortened(names)}) are" if names else "none is"
