"""Windows of which the output's size is given, whatever the input's: those of adaptive pooling.

They are PyTorch's: of an axis with ``length`` elements and ``count`` windows, window i begins at
⌊i · length / count⌋ and ends before ⌈(i + 1) · length / count⌉. Where ``count`` divides ``length``,
these are windows as any others, with kernel = stride = length / count, and pooled where they lie.
Otherwise they overlap and differ in length by one; then those of each length are put side by side
(:class:`Group`) and pooled together.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .torchscript import sizes_of

__all__ = ["Bins", "Group", "adaptive_windows", "groups", "rejoined", "taken"]


class Bins(NamedTuple):
    """Number of windows down and across; 0: one for each row or column of the input.

    Stands where a kernel size does. Made by :func:`adaptive_windows`, which checks the values.
    """

    down: int
    across: int

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Output height and width."""
        return self.down or height, self.across or width

    def kernel_size(self, height: int, width: int) -> tuple[int, int] | None:
        """Height and width of the windows, if they tile the plane; otherwise ``None``."""
        down, across = self.output_size(height, width)
        # Not asked of a symbolic size where the answer is known.
        if (down == 1 or height % down == 0) and (across == 1 or width % across == 0):
            return height // down, width // across
        return None

    def tile(self, input: object) -> bool:
        """Whether all windows of ``input`` are of one size; also of what is no input at all."""
        if not isinstance(input, Tensor) or input.dim() not in (3, 4):
            return True
        return self.kernel_size(*sizes_of(input)[-2:]) is not None


class Group(NamedTuple):
    """Windows of one length on an axis.

    Attributes:
        length: of each of them.
        windows: their numbers.
        elements: the numbers of their elements, window by window.
    """

    length: int
    windows: list[int]
    elements: list[int]


def adaptive_windows(output_size: int | tuple[int | None, int | None] | None) -> Bins:
    """A ``kernel_size`` for windows that give an output of ``output_size``, whatever the input's.

    Every pooling of windows takes it in place of a kernel size. Stride and padding then do not
    matter. The windows are those of ``torch.nn.functional.adaptive_avg_pool2d``.

    Args:
        output_size: an int or a (height, width) pair; ``None`` for as many as the input has.

    Raises:
        TypeError: none of these.
        ValueError: a size below 1.

    Example:
        >>> from gfgp_cupy.poolings import log_sum_exp_pool2d
        >>> log_sum_exp_pool2d(torch.randn(2, 3, 9, 7), 1.0, adaptive_windows((3, None))).shape
        torch.Size([2, 3, 3, 7])
    """
    pair = output_size if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    if len(pair) != 2 or not all(size is None or type(size) is int for size in pair):
        raise TypeError(
            f"output_size must be an int, None, or a pair of these, got {output_size!r}"
        )
    down, across = pair
    if any(size is not None and size < 1 for size in pair):
        raise ValueError(f"output_size must be at least 1 in both directions, got {output_size}")
    return Bins(down or 0, across or 0)


def groups(length: int, count: int) -> list[Group]:
    """The ``count`` windows of an axis of ``length`` elements, by their lengths."""
    of_length: dict[int, Group] = {}
    for window in range(count):
        begin, end = window * length // count, -(-(window + 1) * length // count)
        group = of_length.setdefault(end - begin, Group(end - begin, [], []))
        group.windows.append(window)
        group.elements.extend(range(begin, end))
    return list(of_length.values())


def taken(tensor: Tensor, axis: int, numbers: list[int]) -> Tensor:
    """The slices of ``tensor`` with these ``numbers``; all of it, if it has one for all."""
    if tensor.shape[axis] == 1 or numbers == list(range(tensor.shape[axis])):
        return tensor
    return tensor.index_select(axis, torch.tensor(numbers, device=tensor.device))


def rejoined(parts: list[Tensor], axis: int, of: list[Group]) -> Tensor:
    """What each group gave, in the order of the windows."""
    if len(parts) == 1:
        return parts[0]
    order = [window for group in of for window in group.windows]
    places = sorted(range(len(order)), key=order.__getitem__)
    return taken(torch.cat(parts, axis), axis, places)
