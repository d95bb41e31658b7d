"""The strides that do not become poolings where they are, but move behind a block or a unit."""

from __future__ import annotations

from torch import nn

from ..choices import check_choice
from .after_blocks import strides_after_blocks
from .folded_units import strides_of_folded_units
from .moved_stride import Strides
from .selection import Selection
from .trace import Trace

__all__ = ["check_strides", "strides_to_move"]


def check_strides(selection: Selection) -> None:
    """Checks the arguments of :func:`gfgp_cupy.replace_pooling` that say which strides move.

    Raises:
        ValueError: an unknown ``strides``, or ``strided_convs`` beside it.
    """
    if selection.strides is None:
        return
    check_choice("strides", selection.strides, ["after_blocks"])
    if selection.strided_convs:
        raise ValueError(
            "strided_convs=True pools directly behind each strided convolution, and "
            f"strides={selection.strides!r} behind the block that it is in: choose one of them"
        )


def strides_to_move(model: nn.Module, selection: Selection, trace: Trace) -> Strides:
    """What moves, by a selection that has been checked and what was seen of the forward."""
    if selection.strides is not None:
        return strides_after_blocks(model, selection, trace)
    folded = selection.strided_convs
    return strides_of_folded_units(model, selection) if folded else Strides()
