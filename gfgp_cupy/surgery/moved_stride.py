"""A stride that moves: a pooling behind a module in which nothing strides any more."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from .plans import Plan
from .subclasses import Behaviour, give_behaviour
from .table import Replacement
from .window import describe

__all__ = ["PlanOfStride", "Pooled"]


class Pooled(Behaviour):
    """Pools what the module returns."""

    pooling: nn.Module

    def forward(self, *args: Tensor, **named: Tensor) -> Tensor:
        return self.pooling(super().forward(*args, **named))


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
        give_behaviour(self.host, Pooled)
        self.host.pooling = pooling
        was, stays = (f"{self.name}(stride {stride})" for stride in (2, 1))
        is_now = f"{stays} + {describe(type(pooling).__name__, self.window)}"
        return Replacement(self.path, self.num_features, was, is_now)
