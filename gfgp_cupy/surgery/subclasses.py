"""Subclasses made while a program runs, whose instances are copied and pickled all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

__all__ = ["class_of", "give_class", "reduced_by"]

SLOTS = ("__dict__", "__weakref__")
"""Of a class, what is made for each class anew."""


def class_of(module: nn.Module) -> type[nn.Module]:
    """The class of ``module``, without what ``torch.nn.utils.parametrize`` has made of it."""
    return parametrize.type_before_parametrizations(module)


def give_class(module: nn.Module, cls: type[nn.Module]) -> None:
    """Makes ``cls`` the :func:`class_of` ``module``.

    PyTorch takes the outermost class away with the last parametrization. Copies of the module are
    of that class, too, so this one gets its own.
    """
    if parametrize.is_parametrized(module):
        outermost = type(module)
        own = {name: what for name, what in vars(outermost).items() if name not in SLOTS}
        module.__class__ = type(outermost.__name__, (cls,), own)
    else:
        module.__class__ = cls


def reduced_by(
    base: type[nn.Module], remake: Callable[..., nn.Module], *details: Any
) -> Callable[[nn.Module, Any], Any]:
    """``__reduce_ex__`` for a subclass of ``base`` that ``pickle`` finds under no name.

    What it makes of an instance is made again by ``base``'s own way and then given to ``remake``,
    with ``details``, which puts it into the subclass. ``base`` may be such a class itself.
    """

    def reduce(self: nn.Module, protocol: Any) -> Any:
        make, arguments, *state = base.__reduce_ex__(self, max(2, protocol))
        arguments = tuple(base if argument is type(self) else argument for argument in arguments)
        return (_remade, (remake, details, make, arguments), *state)

    return reduce


def _remade(
    remake: Callable[..., nn.Module],
    details: tuple[Any, ...],
    make: Callable[..., nn.Module],
    arguments: tuple[Any, ...],
) -> nn.Module:
    return remake(make(*arguments), *details)
