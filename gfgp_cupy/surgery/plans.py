"""What is to be done at each place, decided before anything is touched."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from .handover import hand_over, what_cannot_move
from .refusals import Refusal
from .start import Was, was_of
from .table import Replacement
from .window import Window, describe

__all__ = ["Plan", "PlanOfPooling", "describe_pooling"]


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
    @abstractmethod
    def found(self) -> str:
        """What is there, with its window, for the table."""

    @property
    def was(self) -> Was | None:
        """What was computed there, or None where it was neither an average nor a maximum."""
        return None

    def obstacle(self, pooling: nn.Module) -> Refusal | None:
        """Why what :meth:`make` has made cannot take its place; None if it can."""
        return None

    @abstractmethod
    def apply(self, model: nn.Module, pooling: nn.Module) -> Replacement:
        """Puts what :meth:`make` has made into the network, which cannot fail."""


@dataclass(frozen=True, kw_only=True)
class PlanOfPooling(Plan):
    """``module`` gives way to the new pooling, which takes over what others have set on it."""

    module: nn.Module

    @property
    def was(self) -> Was | None:
        return was_of(self.module)

    @property
    def found(self) -> str:
        return describe(type(self.module).__name__, self.module)

    def obstacle(self, pooling: nn.Module) -> Refusal | None:
        reason = what_cannot_move(self.module, pooling)
        return Refusal(self.path, self.found, reason) if reason else None

    def apply(self, model: nn.Module, pooling: nn.Module) -> Replacement:
        was = self.found
        parent, _, name = self.path.rpartition(".")
        hand_over(self.module, pooling)
        setattr(model.get_submodule(parent), name, pooling)
        return Replacement(self.path, self.num_features, was, self.described(pooling))

    def described(self, pooling: nn.Module) -> str:
        """The new pooling, for the table."""
        return describe_pooling(pooling, self.window)


def describe_pooling(pooling: nn.Module, window: Window) -> str:
    """A new ``pooling`` with its ``window``, in which padding counts where the pooling says so."""
    counts = getattr(pooling, "count_include_pad", window.count_include_pad)
    return describe(type(pooling).__name__, replace(window, count_include_pad=counts))
