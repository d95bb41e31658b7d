"""A pooling that is called in several places, which have different numbers of channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.fx import Proxy

from ..fx import leaf_call
from ..torchscript import sizes_of
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
    """``module``, called with ``all_channels``, gives way to one pooling for each number of them.

    A pooling without tensors serves all.
    """

    all_channels: tuple[int, ...]

    def make(self, make_pooling: Callable[..., nn.Module]) -> nn.Module:
        poolings = [
            super(PlanByChannels, replace(self, num_features=channels)).make(make_pooling)
            for channels in self.all_channels
        ]
        if not poolings[0].state_dict():
            return poolings[0]
        keys = map(str, self.all_channels)
        made = PoolingByChannels(dict(zip(keys, poolings, strict=True)))
        made.axes = self.window.axes
        return made.train(self.training)

    def described(self, pooling: nn.Module) -> str:
        if not isinstance(pooling, PoolingByChannels):
            return super().described(pooling)
        one = next(iter(pooling.values()))
        return f"{describe_pooling(one, self.window)} for each of {', '.join(pooling)}"
