"""A pooling that is called in several places, which have different numbers of channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.fx import Proxy

from ..fx import leaf_call
from ..torchscript import sizes_of
from .handover import without_hooks
from .plans import PlanOfPooling, describe_pooling

__all__ = ["PlanByChannels", "PoolingByChannels"]


class PoolingByChannels(nn.ModuleDict):
    """A pooling for each number of channels, in the place of one module for all of them.

    Its keys are the numbers. :func:`replace_pooling` makes it where a network calls one pooling
    after several layers.

    Shape:
        - input: [N, C, H, W] or [C, H, W], with C one of the keys; likewise of other ``axes``.
        - output: as the pooling for C makes it.

    Raises:
        ValueError: an input of another number of channels.

    Example:
        >>> pool = PoolingByChannels({"8": nn.MaxPool2d(2), "16": nn.AvgPool2d(2)})
        >>> pool(torch.ones(1, 16, 4, 4)).shape
        torch.Size([1, 16, 2, 2])
    """

    axes = 2

    def forward(self, input: Tensor) -> Any:
        if isinstance(input, Proxy):
            return leaf_call(self, input)
        channels = str(int(sizes_of(input)[-1 - self.axes]))
        if channels not in self:
            raise ValueError(
                f"input has {channels} channels, and there are poolings for {', '.join(self)}: the "
                "network's forward did not use it so when replace_pooling traced it"
            )
        return self[channels](input)


@dataclass(frozen=True, kw_only=True)
class PlanByChannels(PlanOfPooling):
    """``module`` gives way to one pooling for each number of channels that it is called with.

    A pooling without tensors serves all.

    Attributes:
        replaced: those numbers.
        kept: likewise, those for which what was there stays.
    """

    replaced: tuple[int, ...]
    kept: tuple[int, ...] = ()

    def make(self, make_pooling: Callable[..., nn.Module]) -> nn.Module:
        poolings = {
            str(channels): super(PlanByChannels, replace(self, num_features=channels)).make(
                make_pooling
            )
            for channels in self.replaced
        }
        one = next(iter(poolings.values()))
        if not self.kept and not one.state_dict():
            return one
        was = {str(channels): without_hooks(self.module) for channels in self.kept}
        made = PoolingByChannels(was | poolings)
        made.axes = self.window.axes
        return made.train(self.training)

    def described(self, pooling: nn.Module) -> str:
        if not isinstance(pooling, PoolingByChannels):
            return super().described(pooling)
        new = describe_pooling(pooling[str(self.num_features)], self.window)
        rest = f", {self.found} for {_listed(self.kept)}" if self.kept else ""
        each = "each of " if self.replaced[1:] else ""
        return f"{new} for {each}{_listed(self.replaced)}{rest}"


def _listed(channels: tuple[int, ...]) -> str:
    return ", ".join(map(str, channels))
