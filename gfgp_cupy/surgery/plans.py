"""What is to be done at each place, decided before anything is touched."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .equivalents import leaving_out
from .start import Was
from .table import Replacement
from .window import Window, describe, window_of

__all__ = ["Plan", "PlanOfPooling", "plan_of_pooling"]


@dataclass(frozen=True, kw_only=True)
class Plan(ABC):
    """A pooling of ``window`` to be made and put at ``path``.

    Attributes:
        path: of the module that it replaces, or is put into.
        num_features: number of channels that are pooled.
        window: the new pooling's.
        device, dtype: of its tensors.
        training: its mode.
    """

    path: str
    num_features: int
    window: Window
    device: torch.device
    dtype: torch.dtype
    training: bool

    def make(self, make_pooling: Callable[..., nn.Module]) -> nn.Module:
        """The new pooling; the network is not touched."""
        w = self.window
        # Asked for only where it is needed: a callable may not know it.
        counting = {"count_include_pad": True} if w.count_include_pad else {}
        pooling = make_pooling(
            self.num_features,
            w.kernel_size,
            w.stride,
            w.padding,
            w.ceil_mode,
            device=self.device,
            dtype=self.dtype,
            **counting,
        )
        return pooling.train(self.training)

    @property
    def was(self) -> Was | None:
        """What was computed there, or None where it was neither an average nor a maximum."""
        return None

    @abstractmethod
    def apply(self, model: nn.Module, pooling: nn.Module) -> Replacement:
        """Puts what :meth:`make` has made into the network, which cannot fail."""


@dataclass(frozen=True, kw_only=True)
class PlanOfPooling(Plan):
    """``module`` gives way to the new pooling."""

    module: nn.Module

    @property
    def was(self) -> Was | None:
        return "max" if isinstance(self.module, nn.MaxPool2d) else "avg"

    def apply(self, model: nn.Module, pooling: nn.Module) -> Replacement:
        was = describe(type(self.module).__name__, self.module)
        is_now = describe(type(pooling).__name__, self.window)
        parent, _, name = self.path.rpartition(".")
        setattr(model.get_submodule(parent), name, pooling)
        return Replacement(self.path, self.num_features, was, is_now)


def plan_of_pooling(
    path: str, module: nn.MaxPool2d | nn.AvgPool2d, inputs: list[Tensor]
) -> PlanOfPooling | None:
    """The plan, or None if the pooling is global in each of its uses.

    Raises:
        ValueError: it is not used, or with different numbers of channels.
    """
    if not inputs:
        raise ValueError(
            f"the number of channels of {path!r} cannot be found, because the network's forward "
            f"does not call it: {leaving_out(path)}"
        )
    window = window_of(module.kernel_size, module.stride, module.padding, module.ceil_mode)
    if all(window.covers(input) for input in inputs):
        return None
    channels = sorted({input.shape[-3] for input in inputs})
    if len(channels) > 1:
        raise ValueError(
            f"{path!r} ({type(module).__name__}) is used in several places, with "
            f"{' and '.join(map(str, channels))} channels, and the new one takes one number of "
            f"them: give each place a module of its own, or {leaving_out(path)}"
        )
    return PlanOfPooling(
        path=path,
        module=module,
        window=window,
        num_features=channels[0],
        device=inputs[0].device,
        dtype=inputs[0].dtype,
        training=module.training,
    )
