"""Which poolings, calls and strides are to be replaced, as a caller says it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

__all__ = ["Selection"]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The arguments of :func:`gfgp_cupy.replace_pooling` that say what is replaced."""

    strided_convs: bool
    strides: str | None
    functional: bool
    stride_one: bool
    where: Callable[[str, nn.Module], bool] | None
    min_channels: int

    def has(self, path: str, module: nn.Module) -> bool:
        """Whether ``where`` selects the module at ``path``."""
        return self.where is None or self.where(path, module)
