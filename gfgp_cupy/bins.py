"""Windows of which the output's size is given, whatever the input's: those of adaptive pooling.

They are PyTorch's: of an axis with ``length`` elements and ``count`` windows, window i begins at
⌊i · length / count⌋ and ends before ⌈(i + 1) · length / count⌉. Where ``count`` divides ``length``,
these are windows as any others, with kernel = stride = length / count, and pooled where they lie.
Otherwise they overlap and differ in length by one; then those of each length are put side by side
(:class:`Group`) and pooled together.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from .geometry import Sizes, check_axes
from .memory_format import layout_of
from .onnx_export import refuse_open_sizes
from .torchscript import held_to_sizes, is_tracing, sizes_of

__all__ = ["Bins", "Group", "adaptive_windows", "groups", "rejoined", "taken"]


class Bins(NamedTuple):
    """Number of windows on each axis, or one number for all of them; 0: one for each element.

    Stands where a kernel size does, and says to type checkers that it is one (no subclass of a
    tuple is compiled, recorded and exported as a named tuple is). Made by :func:`adaptive_windows`,
    which checks the values.
    """

    counts: Sizes

    def of_axes(self, axes: int) -> Bins:
        """With a number for each of so many axes.

        Raises:
            TypeError: there are more or fewer.
        """
        if len(self.counts) == 1:
            return Bins(self.counts * axes)
        if len(self.counts) != axes:
            raise TypeError(
                f"output_size must be an int, None, or {_MANY[axes]} of these, got {self.sizes()}"
            )
        return self

    def sizes(self) -> tuple[int | None, ...]:
        """As :func:`adaptive_windows` was told; ``None`` for as many as the input has."""
        return tuple([count or None for count in self.counts])

    def output_size(self, *sizes: int) -> Sizes:
        """That of an input of these ``sizes``."""
        return tuple([count or size for count, size in zip(self.counts, sizes, strict=True)])

    def kernel_size(self, *sizes: int) -> Sizes | None:
        """The windows' sizes, if they tile the input; otherwise ``None``.

        Raises:
            ValueError: they depend on a size that an export to ONNX leaves open.
        """
        if torch.onnx.is_in_onnx_export() and any(self._depend_on_open(sizes)):
            refuse_open_sizes(f"how long the windows of output_size={self.sizes()} are")
        counts = self.output_size(*sizes)
        for count, size in zip(counts, sizes, strict=True):
            # Not asked of a symbolic size where the answer is known.
            if count != 1 and size % count != 0:
                return None
        return tuple([size // count for count, size in zip(counts, sizes, strict=True)])

    def of_one_size(self, input: Tensor) -> Tensor:
        """``input``, [N, C, H, W] or with other axes, of which a jit trace refuses other sizes than
        today's where its windows would have to be others, too."""
        if not is_tracing() or set(self.counts) == {1}:
            return input
        return held_to_sizes(input, map(bool, self.counts))

    def tile(self, input: object, axes: int) -> bool:
        """Whether all windows of ``input`` are of one size; also of what is no input at all.

        Raises:
            ValueError: ``axes`` is none of 1, 2 and 3.
            TypeError: as :meth:`of_axes`.
        """
        check_axes(axes)
        if not isinstance(input, Tensor) or input.dim() not in (axes + 1, axes + 2):
            return True
        return self.of_axes(axes).kernel_size(*sizes_of(input)[-axes:]) is not None

    def _depend_on_open(self, sizes: Sizes) -> list[bool]:
        """For each axis, whether its size is a symbol, and its windows another number than that."""
        if set(self.counts) == {1}:
            return []  # whole planes, whatever their size
        sizes_and_counts = zip(sizes, self.counts, strict=True)
        return [bool(count) and isinstance(size, torch.SymInt) for size, count in sizes_and_counts]


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


def adaptive_windows(output_size: int | tuple[int | None, ...] | None) -> Sizes:
    """A ``kernel_size`` for windows that give an output of ``output_size``, whatever the input's.

    Every pooling of windows takes it in place of a kernel size. Stride and padding then do not
    matter. The windows are those of ``torch.nn.functional.adaptive_avg_pool2d``.

    Args:
        output_size: an int, for every axis (as is a tuple of one), or a tuple with one for each,
            such as a (height, width) pair; ``None`` for as many as the input has.

    Raises:
        TypeError: none of these; a symbolic size, of an export for inputs of any size.
        ValueError: a size below 1.

    Example:
        >>> from gfgp_cupy.poolings import log_sum_exp_pool2d
        >>> log_sum_exp_pool2d(torch.randn(2, 3, 9, 7), 1.0, adaptive_windows((3, None))).shape
        torch.Size([2, 3, 3, 7])
    """
    sizes = output_size if isinstance(output_size, (tuple, list)) else (output_size,)
    if any(isinstance(size, torch.SymInt) for size in sizes):
        raise TypeError(
            f"output_size must be numbers, got {output_size}, which an export leaves open, but how "
            "long windows are depends on it: pass numbers, or export for inputs of one size"
        )
    if len(sizes) not in _MANY or not all(map(_is_size, sizes)):
        raise TypeError(
            "output_size must be an int, None, or a pair of these (of three axes a triple), got "
            f"{output_size!r}"
        )
    if any(size is not None and size < 1 for size in sizes):
        raise ValueError(f"output_size must be at least 1 in every direction, got {output_size}")
    return cast(Sizes, Bins(tuple([0 if size is None else int(size) for size in sizes])))


def _is_size(size: object) -> bool:
    return size is None or (isinstance(size, (int, np.integer)) and not isinstance(size, bool))


_MANY = {1: "a tuple of one", 2: "a pair", 3: "a triple"}


def groups(length: int, count: int) -> list[Group]:
    """The ``count`` windows of an axis of ``length`` elements, by their lengths."""
    # A symbolic size becomes a number: a program for any size would need other windows.
    length, count = int(length), int(count)
    of_length: dict[int, Group] = {}
    for window in range(count):
        begin, end = window * length // count, -(-(window + 1) * length // count)
        group = of_length.setdefault(end - begin, Group(end - begin, [], []))
        group.windows.append(window)
        group.elements.extend(range(begin, end))
    return list(of_length.values())


def taken(tensor: Tensor, axis: int, numbers: list[int]) -> Tensor:
    """The slices of ``tensor`` with these ``numbers``.

    They are cut out and put together: a GPU would have to wait for the copy of an index, and would
    add up the gradients of what it repeats in no fixed order.
    """
    length = int(sizes_of(tensor)[axis])
    runs = _runs(numbers)
    if runs == [(0, length)]:
        return tensor
    if not is_tracing() and layout_of(tensor) is not torch.contiguous_format:
        # The gradient of what is split is contiguous: here in this order of its axes.
        return _joined(tensor.movedim(1, -1), axis - 1, runs, length).movedim(-1, 1)
    return _joined(tensor, axis, runs, length)


def _joined(tensor: Tensor, axis: int, runs: list[tuple[int, int]], length: int) -> Tensor:
    """The ``runs`` of an axis, one behind another."""
    pieces: dict[int, Tensor] = {}
    for apart in _runs_apart(runs):
        edges = {edge for index in apart for edge in runs[index]}
        cuts = sorted({0, length, *edges})
        sizes = [end - begin for begin, end in pairwise(cuts)]
        by_begin = dict(zip(cuts[:-1], tensor.split(sizes, axis), strict=True))
        # PyTorch 2.6 does not compile |=.
        pieces.update({index: by_begin[runs[index][0]] for index in apart})
    return torch.cat([pieces[index] for index in range(len(runs))], axis)


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    """Begin and end of each run of consecutive ``numbers``."""
    breaks = [at for at in range(1, len(numbers)) if numbers[at] != numbers[at - 1] + 1]
    begins, ends = [0, *breaks], [*breaks, len(numbers)]
    return [(numbers[begin], numbers[end - 1] + 1) for begin, end in zip(begins, ends, strict=True)]


def _runs_apart(runs: list[tuple[int, int]]) -> list[list[int]]:
    """The indices of ``runs`` in few lists, in each of which every run begins behind the last."""
    lists: list[list[int]] = []
    for index, (begin, _) in enumerate(runs):
        for apart in lists:
            if runs[apart[-1]][1] <= begin:
                apart.append(index)
                break
        else:
            lists.append([index])
    return lists


def rejoined(parts: list[Tensor], axis: int, of: list[Group]) -> Tensor:
    """What each group gave, in the order of the windows."""
    if len(parts) == 1:
        return parts[0]
    order = [window for group in of for window in group.windows]
    places = sorted(range(len(order)), key=order.__getitem__)
    return taken(torch.cat(parts, axis), axis, places)
