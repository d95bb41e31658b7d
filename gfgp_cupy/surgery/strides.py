"""The strides that do not become poolings where they are, but move behind a block or a unit."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ..choices import check_choice
from .after_blocks import strides_after_blocks
from .folded_units import strides_of_folded_units
from .moved_stride import Strides

__all__ = ["strides_to_move"]


def strides_to_move(
    model: nn.Module,
    strides: str | None,
    *,
    strided_convs: bool,
    where: Callable[[str, nn.Module], bool] | None,
    min_channels: int,
) -> Strides:
    """What moves, by the arguments of :func:`gfgp_cupy.replace_pooling`.

    Raises:
        ValueError: an unknown ``strides``, or ``strided_convs`` beside it.
    """
    if strides is None:
        return strides_of_folded_units(model, where, min_channels) if strided_convs else Strides()
    check_choice("strides", strides, ["after_blocks"])
    if strided_convs:
        raise ValueError(
            "strided_convs=True pools directly behind each strided convolution, and "
            f"strides={strides!r} behind the block that it is in: choose one of them"
        )
    return strides_after_blocks(model, where, min_channels)
