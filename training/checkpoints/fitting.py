"""Tensors of a file into a network: all of them, or as far as they fit."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gfgp_cupy.published_names import GAUSSIAN_NAMES, MAX_ENT_NAMES
from models.state_dict import drop_wrapper_names

OLD_DENSENET_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
"""As in the files that torchvision downloads: ``denselayer1.norm.1.weight``."""

VGG_CLASSIFIER_NAMES = {"classifier.3.": "classifier.2.", "classifier.6.": "classifier.4."}
"""torchvision's, which has dropout between the linear layers, and those of a VGG without any."""


def take_all(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy ``tensors`` into ``model``, whose own they must be, each of them and no other.

    Counters of batches may be missing, as in old files, and the one of averaged weights is let be.

    Args:
        model: the network.
        tensors: under its own names, those of the published implementation, or torchvision's.

    Raises:
        ValueError: they are of another network; the message names tensors.
    """
    named, own = with_own_names(model, tensors), model.state_dict()
    missing = [name for name in own if name not in named and not _is_counter(name)]
    unknown = [name for name in named if name not in own and name != "n_averaged"]
    shared = {name: tensor for name, tensor in named.items() if name in own}
    others = [
        f"{name} {list(tensor.shape)} in place of {list(own[name].shape)}"
        for name, tensor in shared.items()
        if tensor.shape != own[name].shape
    ]
    kinds = {"missing": missing, "not of this network": unknown, "of another shape": others}
    differences = [f"{kind}: {_count(names)}" for kind, names in kinds.items() if names]
    if differences:
        raise ValueError("; ".join(differences))
    model.load_state_dict(shared, strict=False)


def take_fitting(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    their_classes: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> str:
    """Copy those of ``tensors`` that fit into ``model``; return how many, and what is left.

    A layer is taken as a whole or not at all: by its name, and if all of its tensors have the
    shapes of the model's. What is not taken keeps its fresh weights. The classifier's rows are
    taken by the names of the classes: where those are others than the data's, it starts fresh.

    Args:
        model: the network.
        tensors: under its own names, those of the published implementation, or torchvision's.
        their_classes: names of their network's outputs, None if they are not known.
        classes: names of the data's classes, likewise.

    Raises:
        ValueError: nothing fits.
    """
    named, own = with_own_names(model, tensors), model.state_dict()
    layers, own_layers = layer_shapes(named), layer_shapes(own)
    fitting = {layer for layer, shapes in layers.items() if own_layers.get(layer) == shapes}
    classifier, note = layer_of(next(reversed(own))), ""
    if classifier in fitting and their_classes is not None and classes is not None:
        order = order_of_rows(their_classes, classes, len(own[f"{classifier}.bias"]))
        if order is None:
            fitting.remove(classifier)
            note = (
                f"; {classifier} starts fresh, for the classes are others: "
                f"{listed_others(their_classes, classes)} of the weights, "
                f"{listed_others(classes, their_classes)} of the data"
            )
        elif order != sorted(order):
            for kind in ("weight", "bias"):
                named[f"{classifier}.{kind}"] = named[f"{classifier}.{kind}"][order]
            note = f"; the rows of {classifier} are put in the order of the data's classes"
    taken = {
        name: tensor
        for name, tensor in named.items()
        if layer_of(name) in fitting and not (_is_counter(name) and tensor.dim())
    }
    if not taken:
        raise ValueError(
            f"none of its tensors, {_count(list(named))}, fits the network's, {_count(list(own))}"
        )
    model.load_state_dict(taken, strict=False)
    left = [name for name in named if name not in taken]
    fresh = [name for name in own if layer_of(name) not in fitting]
    return (
        f"{len(taken)} of {len(named)} tensors taken, {_count(left)} left; "
        f"{_count(fresh)} of the network's start fresh{note}"
    )


def order_of_rows(
    their_classes: Sequence[str], classes: Sequence[str], rows: int
) -> list[int] | None:
    """Return which of a classifier's ``rows`` belongs to each output, None where none does.

    Rows beyond the classes, of ``--num-classes``, stay where they are.

    Example:
        >>> order_of_rows(("cat", "dog"), ("dog", "cat"), 3)
        [1, 0, 2]
        >>> order_of_rows(("cat", "dog"), ("cat", "fox"), 2)
    """
    if sorted(their_classes) != sorted(classes) or len(classes) > rows:
        return None
    places = {name: place for place, name in enumerate(their_classes)}
    return [*(places[name] for name in classes), *range(len(classes), rows)]


def listed_others(names: Sequence[str], known: Sequence[str]) -> str:
    """Return how many of ``names`` are not among ``known``, and the first of them.

    Example:
        >>> listed_others(("cat", "dog", "fox"), ("dog", "cat"))
        '1 (fox)'
    """
    return _count([name for name in names if name not in set(known)])


def with_own_names(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``weights`` with the names that ``model`` has for them, where it has any."""
    named = dict(weights)
    drop_wrapper_names(model, named, "")
    renames = MAX_ENT_NAMES | GAUSSIAN_NAMES
    if "classifier.6.weight" in named and "classifier.6.weight" not in model.state_dict():
        renames |= VGG_CLASSIFIER_NAMES
    renamed = {}
    for name, tensor in named.items():
        for theirs, ours in renames.items():
            name = name.replace(theirs, ours)
        renamed[OLD_DENSENET_NAME.sub(r"\1\2.", name)] = tensor
    return renamed


def layer_shapes(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, torch.Size]]:
    """Return each layer's shapes by name, without the counters that old files lack."""
    shapes: dict[str, dict[str, torch.Size]] = defaultdict(dict)
    for name, tensor in tensors.items():
        if not _is_counter(name):
            shapes[layer_of(name)][name] = tensor.shape
    return shapes


def layer_of(name: str) -> str:
    return name.rpartition(".")[0]


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _count(names: Sequence[str]) -> str:
    """Return how many there are, and the first of them."""
    more = ", …" if len(names) > 3 else ""
    return f"{len(names)} ({', '.join(names[:3])}{more})" if names else "none"
