"""A stride that moves: a pooling behind a module in which nothing strides any more."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor, nn

from .plans import Plan
from .subclasses import reduced_by
from .table import Replacement
from .window import describe

__all__ = ["PlanOfStride", "Pooled", "pooled"]


class Pooled(nn.Module):
    """Pools what a module returns: to be put before the module's own class."""

    pooling: nn.Module

    def forward(self, *args: Tensor, **named: Tensor) -> Tensor:
        return self.pooling(super().forward(*args, **named))


def pooled(module: nn.Module) -> nn.Module:
    """``module``, made an instance of its class and :class:`Pooled`.

    The same object, as ``torch.nn.utils.parametrize`` does it: its hooks, its attributes and
    whoever holds it or its tensors, an optimizer for instance, need not know.
    """
    module.__class__ = _pooled_class(type(module))
    return module


@cache
def _pooled_class(base: type[nn.Module]) -> type[nn.Module]:
    own: dict[str, Any] = {
        # With a name of torch.nn's, torch.fx would not look into it.
        "__module__": __name__,
        "__doc__": base.__doc__,
        "__reduce_ex__": reduced_by(base, pooled),
    }
    return type(f"Pooled{base.__name__}", (Pooled, base), own)


@dataclass(frozen=True, kw_only=True)
class PlanOfStride(Plan):
    """The stride of ``convs`` and ``poolings`` moves behind the output of ``host``.

    Attributes:
        name: of what loses its stride: the class of a block or convolution.
        host: the block, or the activation behind the convolution.
        convs: what stays, without its stride.
        poolings: what goes: parent and name of average poolings in a block's branches.
    """

    name: str
    host: nn.Module
    convs: tuple[nn.Conv2d, ...]
    poolings: tuple[tuple[nn.Module, str], ...] = ()

    def apply(self, model: nn.Module, pooling: nn.Module) -> Replacement:
        for conv in self.convs:
            conv.stride = (1, 1)
        for parent, name in self.poolings:
            setattr(parent, name, nn.Identity().train(self.training))
        pooled(self.host).pooling = pooling
        was, stays = (f"{self.name}(stride {stride})" for stride in (2, 1))
        is_now = f"{stays} + {describe(type(pooling).__name__, self.window)}"
        return Replacement(self.path, self.num_features, was, is_now)
