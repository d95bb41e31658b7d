"""Where a network has poolings and strided convolutions."""

from __future__ import annotations

from typing import TypeGuard

from torch import nn

__all__ = ["Replaceable", "is_replaceable", "places"]

Replaceable = nn.MaxPool2d | nn.AvgPool2d | nn.Conv2d


def places(model: nn.Module) -> dict[str, nn.Module]:
    """The modules by path, each attribute of each parent once.

    A pooling in two attributes is in two places, and can become two. A convolution stays itself
    and so is in one, as is what a block in two attributes consists of.
    """
    found: dict[object, tuple[str, nn.Module]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        parent, _, name = path.rpartition(".")
        attribute = (id(model.get_submodule(parent)), name)
        place = module if isinstance(module, nn.Conv2d) else attribute
        found.setdefault(place, (path, module))
    return dict(found.values())


def is_replaceable(module: nn.Module, strided_convs: bool) -> TypeGuard[Replaceable]:
    if isinstance(module, nn.Conv2d):
        return strided_convs and max(module.stride) == 2
    return isinstance(module, (nn.MaxPool2d, nn.AvgPool2d))
