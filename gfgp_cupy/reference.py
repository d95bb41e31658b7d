"""Pooling in plain PyTorch: what backends are held against, what transforms and tracing run on.

Inputs are [N, C, H, W] or [N, C, D, H, W]; below, [N, C, H, W] stands for both.

Max-Ent pooling: each kernel position (i, j) is a strided view of the padded input, one element a
window, so that a loop over the kH·kW positions needs output-sized temporaries only: the input is
never unfolded.

All sums are taken relative to a reference element r of the window, its maximum (its minimum
where λ < 0): with d_i = x_i − r and e_i = exp(λ d_i), every e_i is at most 1 and one of them is
exactly 1, so c = r + Σ e_i d_i / Σ e_i can neither overflow nor leave [min x, max x]. In a large
window |c| may be much less than |r|, and c has the rounding errors of sums of r's size; so the
same sum is taken again relative to c: y = c + Σ e_i (x_i − c) / Σ e_i is right to the last digit
or two, and with the correction y − c kept apart so are the deviations x_i − y.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .geometry import PoolGeometry, Sizes
from .memory_format import layout_of
from .torchscript import is_tracing, sizes_of

__all__ = [
    "Element",
    "SoftmaxMean",
    "average_of_windows",
    "blocks",
    "composition",
    "largest_of_windows",
    "pad_to_windows",
    "softmax_mean",
    "views",
    "weight_and_deviation",
    "window_elements",
    "windows",
    "zero_padded",
]

Element = tuple[Tensor, Tensor | None]
"""Of each window, the element at one kernel position, and the windows that have it inside the
input; ``None`` where all do."""


def composition(input: Tensor, lam: Tensor, geometry: PoolGeometry) -> Tensor:
    """Max-Ent pooling of [N, C, H, W] ``input`` with λ of 4 dimensions, to [N, C, oH, oW].

    It is made of differentiable operations alone, so that PyTorch can derive it again.
    """
    if geometry.is_whole_plane(*sizes_of(input)[2:]):
        return _plane_mean(input.to(lam.dtype), lam).to(input.dtype)
    return softmax_mean(window_elements(input, lam.dtype, geometry), lam).mean().to(input.dtype)


def _plane_mean(x: Tensor, lam: Tensor) -> Tensor:
    """:func:`softmax_mean`'s y of windows that are whole planes."""
    constants = x.detach(), lam.detach()
    axes = _axes_of(x)
    smallest, largest = constants[0].amin(axes, True), constants[0].amax(axes, True)
    reference = torch.where(constants[1] < 0, smallest, largest)
    elements = math.prod(x.shape[2:])

    def mean_distance(x: Tensor, lam: Tensor, centre: Tensor) -> Tensor:
        exponential = torch.exp(lam * (x - reference))
        # Divided first: no sum outgrows the largest distance.
        weighted = exponential * ((x - centre) / elements)
        return weighted.sum(axes, keepdim=True) / exponential.mean(axes, keepdim=True)

    centre = reference + mean_distance(*constants, reference)
    return centre + mean_distance(x, lam, centre)


class SoftmaxMean(NamedTuple):
    """The softmax-weighted mean of each window, and what it is made of.

    Attributes:
        reference: r, the element whose exponential is 1.
        total: Σ e_i.
        centre: c, the mean but for rounding errors.
        correction: y − c.
    """

    reference: Tensor
    total: Tensor
    centre: Tensor
    correction: Tensor

    # No property: PyTorch 2.6 cannot compile those of named tuples.
    def mean(self) -> Tensor:
        """y."""
        return self.centre + self.correction


def softmax_mean(elements: list[Element], lam: Tensor) -> SoftmaxMean:
    """The mean of each window with weights e_i / Σ e_i.

    It is the same about any centre, and so are its derivatives: r and c are constants.
    """
    constants = [(x.detach(), valid) for x, valid in elements]
    reference = _reference(constants, lam.detach())
    centre = reference + _sums(constants, lam.detach(), reference, reference)[1]
    total, correction = _sums(elements, lam, reference, centre)
    return SoftmaxMean(reference, total, centre, correction)


def weight_and_deviation(element: Element, lam: Tensor, mean: SoftmaxMean) -> tuple[Tensor, Tensor]:
    """p_i = e_i / Σ e_i, which is 0 outside the input, and x_i − y."""
    weight = _exponential(element, lam, mean.reference) / mean.total
    return weight, _distance(element, mean.centre) - mean.correction


def window_elements(input: Tensor, dtype: torch.dtype, geometry: PoolGeometry) -> list[Element]:
    """For each kernel position, row by row, each window's element there, of type ``dtype``."""
    padded = zero_padded(input.to(dtype), geometry)
    valid = _traced_valid if is_tracing() else _valid
    return list(zip(views(padded, input, geometry), valid(input, geometry), strict=True))


def blocks(terms: list) -> list[list]:
    """About as many blocks as each has terms: sums in two levels keep more digits."""
    size = math.isqrt(len(terms) - 1) + 1
    return [terms[start : start + size] for start in range(0, len(terms), size)]


def views(padded: Tensor, input: Tensor, geometry: PoolGeometry) -> Iterator[Tensor]:
    """For each kernel position, row by row, the [N, C, oH, oW] view of its elements.

    ``padded`` is what :func:`zero_padded` makes of ``input`` or of a tensor of its shape.
    """
    counts = geometry.output_size(*input.shape[2:])
    axes = [_positions(geometry, axis, count) for axis, count in enumerate(counts)]
    channels_last = _is_channels_last(input)
    for position in product(*axes):
        if channels_last:
            # The gradient of a slice is contiguous: here in this order of its axes.
            yield padded.movedim(1, -1)[(slice(None), *position)].movedim(-1, 1)
        else:
            yield padded[(slice(None), slice(None), *position)]


def windows(input: Tensor, geometry: PoolGeometry) -> tuple[Tensor, Tensor]:
    """The elements of each window as one tensor, and which of them lie inside the input.

    The element's number in the window comes first: sums over it then run along whole planes,
    which PyTorch does much faster than many sums over a few neighbours.

    Returns:
        A tensor [kH · kW, N, C, oH, oW] made of [N, C, H, W] ``input``, zero where windows reach
        past it; and a bool mask [kH · kW, 1, 1, oH, oW] that is false there.

    Example:
        >>> geometry = PoolGeometry((2, 2), stride=(2, 2), padding=(0, 0), ceil_mode=True)
        >>> elements, inside = windows(torch.arange(1.0, 10).reshape(1, 1, 3, 3), geometry)
        >>> elements[:, 0, 0, 0, 1]
        tensor([3., 0., 6., 0.])
        >>> inside[:, 0, 0, 0, 1]
        tensor([ True, False,  True, False])
    """
    return _unfolded(input, geometry), _unfolded(_plane_of_ones(input, torch.bool), geometry)


def largest_of_windows(input: Tensor, geometry: PoolGeometry) -> Tensor:
    """The maximum of each window, as ``F.max_pool2d`` or ``F.max_pool3d`` finds it."""
    if geometry.is_whole_plane(*sizes_of(input)[2:]):
        return input.amax(_axes_of(input), keepdim=True)  # also of planes of symbolic size
    pool = F.max_pool2d if input.dim() == 4 else F.max_pool3d
    window = geometry.kernel_size, geometry.stride, geometry.padding
    return pool(input, *window, ceil_mode=geometry.ceil_mode)


def average_of_windows(input: Tensor, geometry: PoolGeometry) -> Tensor:
    """The mean of the elements that each window has inside, as ``F.avg_pool2d`` or
    ``F.avg_pool3d`` computes it."""
    if geometry.is_whole_plane(*sizes_of(input)[2:]):
        return input.mean(_axes_of(input), keepdim=True)
    if input.dim() == 4:
        return F.avg_pool2d(input, *geometry, count_include_pad=False)
    sizes = zip(sizes_of(input)[2:], geometry.kernel_size, strict=True)
    if all(size >= kernel for size, kernel in sizes):
        return F.avg_pool3d(input, *geometry, count_include_pad=False)
    # PyTorch refuses such volumes, whatever the padding. So zeros are put there, which take part in
    # each mean, and that is divided by the elements' share of its window.
    kernel, stride = geometry.kernel_size, geometry.stride
    of_all = F.avg_pool3d(pad_to_windows(input, geometry), kernel, stride)
    ones = torch.ones_like(input[:1, :1])
    return of_all / F.avg_pool3d(pad_to_windows(ones, geometry), kernel, stride)


def pad_to_windows(input: Tensor, geometry: PoolGeometry) -> Tensor:
    """``input`` with zeros on every side on which a window reaches past it."""
    behind = None if _is_of_open_size(input) else geometry.overhang(*input.shape[2:])
    return zero_padded(input, geometry, behind)


def zero_padded(input: Tensor, geometry: PoolGeometry, behind: Sizes | None = None) -> Tensor:
    """``input`` with the zeros of its padding before it, and so many behind it, on each axis.

    ``behind`` is by default the most that windows can reach past the end of an input of any size,
    since a size may be symbolic.
    """
    behind = geometry.largest_overhang() if behind is None else behind
    amounts = []
    for of_axis in zip(geometry.padding[::-1], behind[::-1], strict=True):
        amounts += of_axis
    # In a trace "same" padding is a tensor, and may be more for another size.
    if not any(isinstance(amount, Tensor) or amount for amount in amounts):
        return input
    return F.pad(input, amounts)


def _positions(geometry: PoolGeometry, axis: int, count: int) -> list[slice]:
    """For each kernel position, where it meets a padded axis in ``count`` windows."""
    kernel, step = geometry.kernel_size[axis], geometry.stride[axis]
    if is_tracing():
        # Counted from the end, so that the trace need not compute it.
        return [slice(i, i - kernel + 1 or None, step) for i in range(kernel)]
    return [slice(i, i + step * (count - 1) + 1, step) for i in range(kernel)]


def _sums(
    elements: list[Element], lam: Tensor, reference: Tensor, centre: Tensor
) -> tuple[Tensor, Tensor]:
    """Per window: the total Σ e_i, and the mean minus ``centre``."""
    # A power of two of at most 1 / Σ e_i: with it no sum outgrows the largest distance.
    factor = 0.5 ** (len(elements) - 1).bit_length()
    total = weighted = torch.zeros_like(reference)
    for block in blocks(elements):
        block_total = block_weighted = torch.zeros_like(reference)
        for element in block:
            exponential = _exponential(element, lam, reference)
            distance = _distance(element, centre)
            block_total = block_total + exponential
            block_weighted = torch.addcmul(block_weighted, exponential, distance, value=factor)
        total = total + block_total
        weighted = weighted + block_weighted
    return total, weighted / (factor * total)


def _reference(elements: list[Element], lam: Tensor) -> Tensor:
    first, *others = elements
    largest, smallest = _inside(first, -math.inf), _inside(first, math.inf)
    for element in others:
        largest = torch.maximum(_inside(element, -math.inf), largest)
        smallest = torch.minimum(_inside(element, math.inf), smallest)
    return torch.where(lam < 0, smallest, largest)


def _exponential(element: Element, lam: Tensor, reference: Tensor) -> Tensor:
    exponential = torch.exp(lam * _distance(element, reference))
    valid = element[1]
    return exponential if valid is None else exponential * valid


def _distance(element: Element, origin: Tensor) -> Tensor:
    return _inside(element, origin) - origin


def _inside(element: Element, elsewhere: Tensor | float) -> Tensor:
    x, valid = element
    return x if valid is None else torch.where(valid, x, elsewhere)


def _valid(input: Tensor, geometry: PoolGeometry) -> Iterator[Tensor | None]:
    """For each kernel position, which windows have it inside the input; ``None`` where all do."""
    size, out = input.shape[2:], geometry.output_size(*input.shape[2:])
    axes = [
        [
            _valid_on_axis(
                offset - geometry.padding[axis],
                geometry.stride[axis],
                out[axis],
                size[axis],
                input.device,
            )
            for offset in range(geometry.kernel_size[axis])
        ]
        for axis in range(len(size))
    ]
    # To broadcast: rows stand upright, and so on.
    placed = [
        [one if one is None else one.reshape(-1, *(1,) * (len(size) - 1 - axis)) for one in masks]
        for axis, masks in enumerate(axes)
    ]
    for position in product(*placed):
        masks = [mask for mask in position if mask is not None]
        yield functools.reduce(operator.and_, masks) if masks else None


def _traced_valid(input: Tensor, geometry: PoolGeometry) -> Iterator[Tensor | None]:
    """:func:`_valid` in a trace, which holds for inputs of any size on any device: there
    ``torch.arange`` would keep the device of now."""
    ones = _plane_of_ones(input, input.dtype)
    padded = zero_padded(ones, geometry)
    for inside in views(padded, ones, geometry):
        yield None if padded is ones else inside > 0


def _valid_on_axis(
    start: int, step: int, count: int, length: int, device: torch.device
) -> Tensor | None:
    if _is_known(length) and start >= 0 and start + step * (count - 1) < length:
        return None
    position = torch.arange(count, device=device) * step + start
    return (position >= 0) & (position < length)


def _unfolded(input: Tensor, geometry: PoolGeometry) -> Tensor:
    if geometry.is_whole_plane(*sizes_of(input)[2:]):
        return input.flatten(2).permute(2, 0, 1)[(...,) + (None,) * (input.dim() - 2)]
    padded = pad_to_windows(input, geometry)
    if _is_of_open_size(input):
        # ONNX unfolds tensors of known sizes only.
        return torch.stack(list(views(padded, input, geometry)))
    count = len(geometry.kernel_size)
    channels_last = _is_channels_last(input)
    # The gradient of an unfolded tensor is contiguous: here in this order of its axes.
    view = padded.movedim(1, -1) if channels_last else padded
    steps = zip(geometry.kernel_size, geometry.stride, strict=True)
    for axis, (kernel, stride) in enumerate(steps, 1 if channels_last else 2):
        view = view.unfold(axis, kernel, stride)
    dimensions = view.dim()
    order = (*range(dimensions - count, dimensions), *range(dimensions - count))
    elements = view.permute(order).flatten(0, count - 1)
    return elements.movedim(-1, 2) if channels_last else elements


def _axes_of(input: Tensor) -> list[int]:
    """The axes of its planes, or volumes."""
    return list(range(2, input.dim()))


def _plane_of_ones(input: Tensor, dtype: torch.dtype) -> Tensor:
    """[1, 1, H, W] of ones for [N, C, H, W] ``input``, on its device."""
    return input.new_ones((1, 1, *input.shape[2:]), dtype=dtype)


def _is_of_open_size(input: Tensor) -> bool:
    """Whether what is computed of it, in a trace or an export, holds for planes of other sizes."""
    return is_tracing() or not all(map(_is_known, input.shape[2:]))


def _is_known(size: int) -> bool:
    """Whether a program may be made for this size alone.

    Exporters have symbolic sizes, which Dynamo says to be ints.
    """
    return isinstance(size, int) and not torch.compiler.is_dynamo_compiling()


def _is_channels_last(input: Tensor) -> bool:
    # A trace has no memory format: it is run on inputs of either.
    return not is_tracing() and layout_of(input) is not torch.contiguous_format
