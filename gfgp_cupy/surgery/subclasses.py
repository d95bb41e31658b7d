"""Subclasses made while a program runs, whose instances are copied and pickled all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

__all__ = ["reduced_by"]


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
