"""A strided convolution's equivalent: the same without its stride, and a pooling behind it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from .plans import Plan
from .table import Replacement
from .window import describe, window_of

__all__ = ["PlanOfConv", "PooledConv2d", "plan_of_conv"]


class PooledConv2d(nn.Conv2d):
    """A convolution of stride 1 and the pooling of its output, in a strided convolution's place.

    Its weight and bias keep their names in the state dict; the pooling's begin with ``pool``.
    :func:`replace_pooling` makes them.

    Shape:
        - input, output: as of the strided convolution; in between there are as many pixels as its
          input has.

    Example:
        >>> from gfgp_cupy import replace_pooling
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1))
        >>> replaced = replace_pooling(net, strided_convs=True)
        >>> type(net[0]).__name__, net(torch.ones(2, 3, 8, 8)).shape
        ('PooledConv2d', torch.Size([2, 8, 4, 4]))
    """

    pool: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        return self.pool(super().forward(input))


@dataclass(frozen=True, kw_only=True)
class PlanOfConv(Plan):
    """``conv`` loses its stride and gets a pooling behind it."""

    conv: nn.Conv2d

    @property
    def found(self) -> str:
        return describe(type(self.conv).__name__, self.conv)

    def apply(self, model: nn.Module, pooling: nn.Module) -> Replacement:
        was = self.found
        # The same object, as torch.nn.utils.parametrize does it: its hooks, and whoever holds
        # it or its tensors, an optimizer for instance, need not know.
        self.conv.stride = (1, 1)
        self.conv.__class__ = PooledConv2d
        self.conv.pool = pooling
        is_now = (
            f"{describe('Conv2d', self.conv)} + {describe(type(pooling).__name__, self.window)}"
        )
        return Replacement(self.path, self.num_features, was, is_now)


def plan_of_conv(path: str, conv: nn.Conv2d) -> PlanOfConv:
    # In ceil mode the output is of the strided convolution's size for odd sizes, too.
    return PlanOfConv(
        path=path,
        window=window_of((conv.stride[0], conv.stride[1]), ceil_mode=True),
        num_features=conv.out_channels,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
        training=conv.training,
        conv=conv,
    )
