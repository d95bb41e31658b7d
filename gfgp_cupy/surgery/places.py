"""Where a network has modules that pool, and strided convolutions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import torch
from torch import nn

from .equivalents import AVERAGES, MAXIMA, axes_of, equivalent_window, reason_against_conv
from .left_alone import reason_by_kind
from .selection import Selection
from .table import Left
from .window import Window, describe, window_of
from .wrappers import is_compiled

__all__ = ["Place", "find_places", "is_strided"]

COMPILED = "is compiled by torch.compile by itself: replace it first, and compile it then"
SCRIPTED = "is compiled by torch.jit, and its modules are fixed: replace its poolings before that"


@dataclass(frozen=True)
class Place:
    """A module that pools, or a strided convolution.

    Attributes:
        path, module: as in ``model.named_modules()``.
        window: by which it pools, as far as its attributes tell.
        obstacle: why nothing is equivalent to it; None where something is.
    """

    path: str
    module: nn.Module
    window: Window | None = None
    obstacle: str | None = None

    @property
    def was(self) -> str:
        return describe(type(self.module).__name__, self.module)

    @property
    def is_pooling(self) -> bool:
        """Whether it is to be traced; all that is asked of a convolution stands in it."""
        return isinstance(self.module, (*MAXIMA, *AVERAGES))


def find_places(model: nn.Module, selection: Selection) -> tuple[list[Place], list[Left]]:
    """The places that are selected, and the poolings of kinds that have no equivalent.

    Raises:
        ValueError: ``model`` is a pooling itself.
    """
    places, left = [], []
    for path, module in _modules(model):
        if reason := reason_by_kind(module):
            left.append(Left(path, describe(type(module).__name__, module), reason))
            continue
        place = _place(path, module, selection.strided_convs)
        if place is None or not selection.has(path, module):
            continue
        if is_compiled(model.get_submodule(path.rpartition(".")[0])):
            place = replace(place, obstacle=COMPILED)
        places.append(place)
    return places, left


def is_strided(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether it is a convolution whose stride can become a pooling."""
    return isinstance(module, nn.Conv2d) and max(module.stride) == 2


def _place(path: str, module: nn.Module, strided_convs: bool) -> Place | None:
    if isinstance(module, nn.Conv2d):
        if strided_convs and is_strided(module):
            return Place(path, module, obstacle=reason_against_conv(module))
    elif isinstance(module, (*MAXIMA, *AVERAGES)):
        if not path:
            raise ValueError(
                f"model is a {type(module).__name__} itself, which cannot be replaced in place: "
                "wrap it in nn.Sequential"
            )
        equivalent = equivalent_window(module)
        if isinstance(equivalent, Window):
            return Place(path, module, equivalent)
        return Place(path, module, _window_of_attributes(module), equivalent)
    elif isinstance(module, torch.jit.ScriptModule):
        names = {getattr(part, "original_name", "") for part in module.modules()}
        if names & {kind.__name__ for kind in (*MAXIMA, *AVERAGES)}:
            return Place(path, module, obstacle=SCRIPTED)
    return None


def _window_of_attributes(module: Any) -> Window | None:
    try:
        return window_of(module.kernel_size, module.stride, axes=axes_of(type(module)))
    except (TypeError, ValueError):
        return None


def _modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules by path, each attribute of each parent once.

    A pooling in two attributes is in two places, and can become two. A convolution stays itself
    and so is in one, as is what a block in two attributes consists of. What torch.jit has compiled
    is one module.
    """
    found: set[object] = set()
    scripted: tuple[str, ...] = ()
    for path, module in model.named_modules(remove_duplicate=False):
        if path.startswith(scripted):
            continue
        if isinstance(module, torch.jit.ScriptModule):
            scripted += (f"{path}.",)
        parent, _, name = path.rpartition(".")
        attribute = (id(model.get_submodule(parent)), name)
        place = module if isinstance(module, nn.Conv2d) else attribute
        if place not in found:
            found.add(place)
            yield path, module
