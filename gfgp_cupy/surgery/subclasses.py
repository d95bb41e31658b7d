"""Classes made from a module's own at run time, whose instances are copied and pickled."""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import nn

__all__ = ["Behaviour", "give_behaviour"]


class Behaviour(nn.Module):
    """What a module is made to do beside what it does: a mixin to be put before its class.

    The class of the two has no name that ``pickle`` finds, so instances tell what it is made of.
    """

    made_of: tuple[type[nn.Module], tuple[type[Behaviour], ...]]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        _, _, *state = super().__reduce_ex__(max(2, protocol))
        return (_new, self.made_of, *state)


def give_behaviour(module: nn.Module, behaviour: type[Behaviour]) -> None:
    """Make ``module`` an instance of a subclass of its class that comes after ``behaviour``.

    It stays the same object, as with ``torch.nn.utils.parametrize``: its hooks, its attributes and
    whoever holds it or its tensors, an optimizer for instance, need not know.
    """
    cls = type(module)
    base, behaviours = cls.made_of if issubclass(cls, Behaviour) else (cls, ())
    module.__class__ = _class_of(base, (*behaviours, behaviour))


@cache
def _class_of(base: type[nn.Module], behaviours: tuple[type[Behaviour], ...]) -> type[nn.Module]:
    # The last comes first: what it calls as super() is what the module did before.
    bases = (*reversed(behaviours), base)
    name = f"{''.join(cls.__name__ for cls in bases[:-1])}{base.__name__}"
    # With this module's name torch.fx looks into it, as not into one that is PyTorch's own.
    return type(name, bases, {"made_of": (base, behaviours), "__module__": __name__})


def _new(base: type[nn.Module], behaviours: tuple[type[Behaviour], ...]) -> nn.Module:
    cls = _class_of(base, behaviours)
    return cls.__new__(cls)
