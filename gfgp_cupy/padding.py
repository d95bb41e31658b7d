"""Padding beyond what the operators know: zeros that count, and TensorFlow's "same" padding.

The operators, and the formulas in plain PyTorch, pool windows of which the padding is no part
(:class:`~gfgp_cupy.geometry.PoolGeometry`). Here every other window is brought to that, once for
all poolings:

- Where the padding counts, the input gets its zeros, and has no padding any more.
- "same" padding depends on the input's size. On an axis of ``size`` elements there are
  ceil(size / stride) windows, for which max((windows − 1) · stride + kernel − size, 0) elements of
  padding are needed: the smaller half comes first, as in TensorFlow. That half on both sides, with
  ceil mode for what is missing at the end, gives these windows without a copy. Only where the
  stride is 1 and the kernel even, ceil mode would drop the last one: there the larger half on both
  sides gives one window too many, the first.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import check_input
from .bins import Bins
from .geometry import MANY_INTS, PoolGeometry, Sizes, check_flag, pool_geometry
from .memory_format import in_layout, layout_of
from .onnx_export import refuse_open_sizes
from .torchscript import held_to_sizes, is_tracing, outside_trace, sizes_of

__all__ = ["ELEMENTS", "SAME", "SameGeometry", "Windows", "place_windows", "window_geometry"]

SAME = "same"

ELEMENTS = {
    axes: PoolGeometry((1,) * axes, (1,) * axes, (0,) * axes, ceil_mode=False) for axes in (1, 2, 3)
}
"""Each element a window, by the number of axes."""


class Windows(NamedTuple):
    """Where the windows of a pooling lie in one input.

    Attributes:
        input: [N, C, H, W] or [N, C, D, H, W]; [N, C, 1, L] where windows have one axis, and
            [N, C, D · H, W] where the only one is a whole volume.
        padded: what is to be pooled: ``input`` itself, or with zeros around it, where these count.
        geometry: of the windows in ``padded``. Padding that it has is no part of them.
        output_shape: of the result of a batch.
        axes: that the caller's windows have: 1, 2 or 3.
        surplus: windows on each axis of ``input`` before those asked for.
    """

    input: Tensor
    padded: Tensor
    geometry: PoolGeometry
    output_shape: tuple[int, ...]
    axes: int = 2
    surplus: Sizes = ()

    def all_of(self, parameter: Tensor) -> Tensor:
        """``parameter``, which broadcasts to the result of a batch, with the axes of ``input`` and
        for the surplus windows as well."""
        if self.axes == 1:
            parameter = parameter.unsqueeze(2)
        elif self.axes > len(self.geometry.kernel_size):
            parameter = parameter.squeeze(2)
        if not any(self.surplus):
            return parameter
        amounts = []
        for size, before in zip(sizes_of(parameter)[:1:-1], self.surplus[::-1], strict=True):
            amounts += [0 if size == 1 else before, 0]
        return F.pad(parameter, amounts)

    def with_fixed_padding(self) -> Windows:
        """The same for PyTorch's own poolings, which take no symbolic padding, and so are compiled
        anew where "same" padding differs."""
        kernel, stride, padding, ceil_mode = self.geometry
        padded = self.padded
        if is_tracing() and torch.onnx.is_in_onnx_export():
            # The padding that the program keeps depends on the size where it is no number.
            padded = held_to_sizes(padded, [not isinstance(each, int) for each in padding])
        fixed = tuple([_fixed(before, size) for before, size in zip(padding, kernel, strict=True)])
        # In full: PyTorch 2.6 does not compile a named tuple's _replace.
        geometry = PoolGeometry(kernel, stride, fixed, ceil_mode)
        return Windows(self.input, padded, geometry, self.output_shape, self.axes, self.surplus)

    def padded_as_given(self, input: Tensor) -> Tensor:
        """``padded`` with the axes that the caller's ``input`` has behind N and C."""
        if self.axes == 1:
            return self.padded.squeeze(2)
        if self.axes > len(self.geometry.kernel_size):  # a whole volume, without padding
            return self.padded.unflatten(2, sizes_of(input)[-3:-1])
        return self.padded

    def output_size(self) -> Sizes:
        """Of the result, a size for each of the caller's axes, in a jit trace computed of those of
        the input."""
        sizes = self.geometry.output_size(*self.padded.shape[2:])
        surplus = self.surplus or (0,) * len(sizes)
        sizes = tuple([size - before for size, before in zip(sizes, surplus, strict=True)])
        return (1, *sizes) if self.axes > len(sizes) else sizes[-self.axes :]

    def result(self, output: Tensor, dimensions: int) -> Tensor:
        """Of the ``output`` of all windows, what is asked for: of input of so many ``dimensions``,
        with a batch or without."""
        if any(self.surplus):
            for axis, before in enumerate(self.surplus, 2):
                output = output.narrow(axis, before, output.shape[axis] - before)
            output = output.clone()  # dense, in the memory format that it has
        if self.axes == 1:
            output = output.squeeze(2)
        elif self.axes > len(self.geometry.kernel_size):
            output = output.unsqueeze(2)
        return output if dimensions == self.axes + 2 else output.squeeze(0)


class SameGeometry(NamedTuple):
    """Kernel and stride of windows with "same" padding, on each axis."""

    kernel_size: Sizes
    stride: Sizes
    padding: str = SAME
    ceil_mode: bool = False

    def output_size(self, *sizes: int) -> Sizes:
        """Windows on each axis: ceil(size / stride)."""
        steps = zip(sizes, self.stride, strict=True)
        return tuple([(size - 1) // stride + 1 for size, stride in steps])

    def before(self, length: int, axis: int) -> int:
        """Elements of padding before the first one, of an axis of ``length`` elements."""
        if self.depends_on_length(axis):
            return self.total(length, axis) // 2
        return (self.kernel_size[axis] - 1) // 2

    def depends_on_length(self, axis: int) -> bool:
        """Whether :meth:`before` does."""
        kernel, stride = self.kernel_size[axis], self.stride[axis]
        return (kernel - 1) // 2 != max(kernel - stride, 0) // 2

    def total(self, length: int, axis: int) -> int:
        """Elements of padding before and behind an axis of ``length`` elements."""
        kernel, stride = self.kernel_size[axis], self.stride[axis]
        missing = kernel - 1 - (length - 1) % stride
        return missing if kernel >= stride else _clamped(missing, kernel - 1)

    def surplus(self, axis: int) -> int:
        """Windows before the first one that geometries in ceil mode cannot do without."""
        return 1 if self.stride[axis] == 1 and self.kernel_size[axis] % 2 == 0 else 0


def window_geometry(
    kernel_size: int | Sizes,
    stride: int | Sizes | None = None,
    padding: int | Sizes | str = 0,
    ceil_mode: bool = False,
    axes: int = 2,
) -> PoolGeometry | SameGeometry:
    """Checks pooling arguments; ``ceil_mode`` changes nothing where ``padding`` is ``"same"``.

    Raises:
        TypeError, ValueError: as :func:`~gfgp_cupy.geometry.pool_geometry`.
    """
    if not isinstance(padding, str):
        return pool_geometry(kernel_size, stride, padding, ceil_mode, axes)
    if padding != SAME:
        raise ValueError(f"padding must be an int, {MANY_INTS[axes]} or 'same', got {padding!r}")
    geometry = pool_geometry(kernel_size, stride, 0, ceil_mode, axes)
    return SameGeometry(geometry.kernel_size, geometry.stride, ceil_mode=geometry.ceil_mode)


def place_windows(
    input: Tensor,
    kernel_size: int | Sizes,
    stride: int | Sizes | None = None,
    padding: int | Sizes | str = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
    axes: int = 2,
) -> Windows:
    """The windows of ``input``, [N, C, H, W] or [C, H, W]; likewise [N, C, L] and [N, C, D, H, W].

    Args:
        kernel_size: window size, an int or a (height, width) pair: a number for each axis.
        stride: step between windows, likewise; ``None`` means ``kernel_size``.
        padding: rows and columns of padding on each side, or ``"same"``.
        ceil_mode: round the output size up instead of down.
        count_include_pad: whether the padding takes part, as zeros. What of a window lies beyond
            it never does.
        axes: that windows have: 1, 2 or 3.

    Raises:
        TypeError, ValueError: an argument or the input is none of the above, or the input is
            smaller than a window.
    """
    if isinstance(kernel_size, Bins):
        return _even_windows(input, kernel_size.of_axes(axes))
    geometry = window_geometry(kernel_size, stride, padding, ceil_mode, axes)
    batched, output_shape = check_input(input, geometry)
    if axes == 1:
        batched, geometry = batched.unsqueeze(2), _in_a_plane(geometry)
    if count_include_pad is not False and check_flag("count_include_pad", count_include_pad):
        padded, unpadded = _with_counted_padding(batched, geometry)
        if padded is batched:
            return _placed(batched, unpadded, output_shape, axes)
        return Windows(batched, padded, unpadded, output_shape, axes)
    if isinstance(geometry, PoolGeometry):
        return _placed(batched, geometry, output_shape, axes)
    each = range(len(geometry.stride))
    surplus = tuple([geometry.surplus(axis) for axis in each])
    before = tuple([_padding_before(geometry, batched, axis) for axis in each])
    placed = PoolGeometry(geometry.kernel_size, geometry.stride, before, ceil_mode=True)
    return Windows(batched, batched, placed, output_shape, axes, surplus)


def _in_a_plane(geometry: PoolGeometry | SameGeometry) -> PoolGeometry | SameGeometry:
    """Windows of one axis as those of a plane of one row."""
    kernel, stride = (1, *geometry.kernel_size), (1, *geometry.stride)
    if isinstance(geometry, SameGeometry):
        return SameGeometry(kernel, stride)
    return PoolGeometry(kernel, stride, (0, *geometry.padding), geometry.ceil_mode)


def _even_windows(input: Tensor, bins: Bins) -> Windows:
    axes = len(bins.counts)
    batched, (samples, channels, *size) = check_input(input, ELEMENTS[axes])
    batched, kernel_size = bins.of_one_size(batched), bins.kernel_size(*size)
    if kernel_size is None:
        raise ValueError(
            f"output_size={bins.sizes()} must divide the input's sizes, got {tuple(size)}"
        )
    if axes == 1:
        batched, kernel_size = batched.unsqueeze(2), (1, *kernel_size)
    if is_tracing() and set(bins.counts) == {1}:
        kernel_size = tuple(batched.shape[2:])  # whatever it will be
    none = (0,) * len(kernel_size)
    geometry = PoolGeometry(kernel_size, kernel_size, none, ceil_mode=False)
    return _placed(batched, geometry, (samples, channels, *bins.output_size(*size)), axes)


def _placed(input: Tensor, geometry: PoolGeometry, output_shape: Sizes, axes: int) -> Windows:
    """Windows of which padding is no part. A whole volume is pooled as a plane of all its rows."""
    if axes == 3 and not is_tracing() and geometry.is_whole_plane(*input.shape[2:]):
        input = in_layout(input, layout_of(input)).flatten(2, 3)
        size = tuple(input.shape[2:])
        geometry = PoolGeometry(size, size, (0, 0), ceil_mode=False)
    return Windows(input, input, geometry, output_shape, axes)


def _padding_before(same: SameGeometry, input: Tensor, axis: int) -> int:
    """Elements before an axis, those that only surplus windows need among them."""
    length = input.shape[2 + axis]
    symbolic = same.depends_on_length(axis) and isinstance(length, torch.SymInt)
    if symbolic and torch.onnx.is_in_onnx_export():
        refuse_open_sizes(
            f"padding='same' with kernel_size={same.kernel_size} and stride={same.stride}"
        )
    return same.before(length, axis) + same.surplus(axis)


def _fixed(padding: Any, kernel: int) -> Any:
    """``padding`` as a plain number, also where it is symbolic; then a guard is the price."""
    if isinstance(padding, int):
        return padding
    if isinstance(padding, Tensor):  # in a jit trace
        if not torch.onnx.is_in_onnx_export():
            return padding
        with outside_trace():
            return int(padding)
    return next(number for number in range(kernel) if number == padding)


def _with_counted_padding(
    input: Tensor, geometry: PoolGeometry | SameGeometry
) -> tuple[Tensor, PoolGeometry]:
    """``input`` with the zeros that count, and the windows of it, as many as before."""
    none = (0,) * len(geometry.kernel_size)
    unpadded = PoolGeometry(geometry.kernel_size, geometry.stride, none, geometry.ceil_mode)
    counted = [_counted(geometry, input, axis) for axis in range(len(none))]
    if isinstance(geometry, SameGeometry) and torch.compiler.is_compiling():
        # Of symbolic sizes F.pad would ask whether they are 0, and keep the answer.
        layout = layout_of(input)
        for axis, (before, behind) in enumerate(counted, 2):
            input = _gathered(input, axis, before, behind)
        return in_layout(input, layout), unpadded
    amounts = [amount for of_axis in reversed(counted) for amount in of_axis]
    if is_tracing() or any(amounts):
        return F.pad(input, amounts), unpadded
    return input, unpadded


def _gathered(input: Tensor, axis: int, before: int, behind: int) -> Tensor:
    """``input`` with zeros before and behind it on one axis, element by element."""
    length = input.shape[axis]
    position = torch.arange(before + length + behind, device=input.device) - before
    inside = (position >= 0) & (position < length)
    elements = input.index_select(axis, position.clamp(0, length - 1))
    to_broadcast = inside.reshape(-1, *(1,) * (input.dim() - 1 - axis))
    return torch.where(to_broadcast, elements, 0)


def _counted(geometry: PoolGeometry | SameGeometry, input: Tensor, axis: int) -> tuple[int, int]:
    """Elements of padding before and behind an axis."""
    length = input.shape[2 + axis]
    if isinstance(geometry, SameGeometry):
        before = geometry.before(length, axis)
        return before, geometry.total(length, axis) - before
    padding = geometry.padding[axis]
    if not padding or not geometry.ceil_mode:
        return padding, padding
    # No more than the windows reach: in ceil mode another one would begin in the rest.
    last_start = (geometry.output_size(*input.shape[2:])[axis] - 1) * geometry.stride[axis]
    reach = last_start + geometry.kernel_size[axis] - padding - length
    return padding, _clamped(reach, padding)


def _clamped(number: Any, most: int) -> Any:
    """``number``, but from 0 to ``most``; also a symbolic one, or the tensor of a jit trace."""
    if isinstance(number, Tensor):
        return number.clamp(0, most)
    return torch.sym_min(torch.sym_max(number, 0), most)
