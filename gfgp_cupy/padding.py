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
from .geometry import PoolGeometry, check_flag, pool_geometry
from .torchscript import is_tracing, sizes_of

__all__ = ["ELEMENTS", "SAME", "SameGeometry", "Windows", "place_windows", "window_geometry"]

SAME = "same"

ELEMENTS = PoolGeometry((1, 1), (1, 1), (0, 0), ceil_mode=False)
"""Each element a window."""


class Windows(NamedTuple):
    """Where the windows of a pooling lie in one input.

    Attributes:
        input: [N, C, H, W].
        padded: what is to be pooled: ``input`` itself, or with zeros around it, where these count.
        geometry: of the windows in ``padded``. Padding that it has is no part of them.
        output_shape: of the result of a batch.
        surplus: rows and columns of windows above and left of those asked for.
    """

    input: Tensor
    padded: Tensor
    geometry: PoolGeometry
    output_shape: tuple[int, ...]
    surplus: tuple[int, int] = (0, 0)

    def all_of(self, parameter: Tensor) -> Tensor:
        """``parameter``, which broadcasts to the result, for the surplus windows as well."""
        if self.surplus == (0, 0):
            return parameter
        top, left = self.surplus
        height, width = sizes_of(parameter)[2:]
        return F.pad(parameter, (0 if width == 1 else left, 0, 0 if height == 1 else top, 0))

    def with_fixed_padding(self) -> Windows:
        """The same for PyTorch's own poolings, which take no symbolic padding, and so are compiled
        anew where "same" padding differs."""
        (top, left), (kernel_h, kernel_w) = self.geometry.padding, self.geometry.kernel_size
        fixed = self.geometry._replace(padding=(_fixed(top, kernel_h), _fixed(left, kernel_w)))
        return self._replace(geometry=fixed)

    def result(self, output: Tensor, dimensions: int) -> Tensor:
        """Of the ``output`` of all windows, what is asked for: [C, oH, oW] of 3 ``dimensions``."""
        if self.surplus != (0, 0):
            top, left = self.surplus
            output = output[:, :, top:, left:].clone()  # dense, in the memory format that it has
        return output if dimensions == 4 else output.squeeze(0)


class SameGeometry(NamedTuple):
    """Kernel and stride of windows with "same" padding, as (height, width) pairs."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: str = SAME
    ceil_mode: bool = False

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Output height and width: ceil(size / stride)."""
        (stride_h, stride_w) = self.stride
        return (height - 1) // stride_h + 1, (width - 1) // stride_w + 1

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
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] | str = 0,
    ceil_mode: bool = False,
) -> PoolGeometry | SameGeometry:
    """Checks pooling arguments; ``ceil_mode`` changes nothing where ``padding`` is ``"same"``.

    Raises:
        TypeError, ValueError: as :func:`~gfgp_cupy.geometry.pool_geometry`.
    """
    if not isinstance(padding, str):
        return pool_geometry(kernel_size, stride, padding, ceil_mode)
    if padding != SAME:
        raise ValueError(f"padding must be an int, a pair of ints or 'same', got {padding!r}")
    geometry = pool_geometry(kernel_size, stride, 0, ceil_mode)
    return SameGeometry(geometry.kernel_size, geometry.stride, ceil_mode=geometry.ceil_mode)


def place_windows(
    input: Tensor,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] | str = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
) -> Windows:
    """The windows of ``input``, [N, C, H, W] or [C, H, W].

    Args:
        kernel_size: window size, an int or a (height, width) pair.
        stride: step between windows, likewise; ``None`` means ``kernel_size``.
        padding: rows and columns of padding on each side, or ``"same"``.
        ceil_mode: round the output size up instead of down.
        count_include_pad: whether the padding takes part, as zeros. What of a window lies beyond
            it never does.

    Raises:
        TypeError, ValueError: an argument or the input is none of the above, or the input is
            smaller than a window.
    """
    if isinstance(kernel_size, Bins):
        return _even_windows(input, kernel_size)
    geometry = window_geometry(kernel_size, stride, padding, ceil_mode)
    batched, output_shape = check_input(input, geometry)
    if count_include_pad is not False and check_flag("count_include_pad", count_include_pad):
        padded, unpadded = _with_counted_padding(batched, geometry)
        return Windows(batched, padded, unpadded, output_shape)
    if isinstance(geometry, PoolGeometry):
        return Windows(batched, batched, geometry, output_shape)
    surplus = (geometry.surplus(0), geometry.surplus(1))
    padding = _padding_before(geometry, batched, 0), _padding_before(geometry, batched, 1)
    placed = PoolGeometry(geometry.kernel_size, geometry.stride, padding, ceil_mode=True)
    return Windows(batched, batched, placed, output_shape, surplus)


def _even_windows(input: Tensor, bins: Bins) -> Windows:
    batched, (samples, channels, height, width) = check_input(input, ELEMENTS)
    kernel_size = bins.kernel_size(height, width)
    if kernel_size is None:
        raise ValueError(
            f"output_size={tuple(bins)} must divide the input's height and width, got "
            f"{height} x {width}"
        )
    geometry = PoolGeometry(kernel_size, kernel_size, (0, 0), ceil_mode=False)
    return Windows(
        batched, batched, geometry, (samples, channels, *bins.output_size(height, width))
    )


def _padding_before(same: SameGeometry, input: Tensor, axis: int) -> int:
    """Elements before an axis, those that only surplus windows need among them."""
    length = input.shape[2 + axis]
    symbolic = same.depends_on_length(axis) and isinstance(length, torch.SymInt)
    if symbolic and torch.onnx.is_in_onnx_export():
        raise ValueError(
            f"padding='same' with kernel_size={same.kernel_size} and stride={same.stride} differs "
            "from image size to image size, for which an ONNX program has no means: export it for "
            "images of one size"
        )
    return same.before(length, axis) + same.surplus(axis)


def _fixed(padding: Any, kernel: int) -> Any:
    """``padding`` as a plain number, also where it is symbolic; then a guard is the price."""
    if isinstance(padding, int):
        return padding
    if isinstance(padding, Tensor) and not torch.onnx.is_in_onnx_export():  # in a jit trace
        return padding
    return next(number for number in range(kernel) if number == padding)


def _with_counted_padding(
    input: Tensor, geometry: PoolGeometry | SameGeometry
) -> tuple[Tensor, PoolGeometry]:
    """``input`` with the zeros that count, and the windows of it, as many as before."""
    unpadded = PoolGeometry(geometry.kernel_size, geometry.stride, (0, 0), geometry.ceil_mode)
    (top, bottom), (left, right) = _counted(geometry, input, 0), _counted(geometry, input, 1)
    if isinstance(geometry, SameGeometry) and torch.compiler.is_compiling():
        # Of symbolic sizes F.pad would ask whether they are 0, and keep the answer.
        return _gathered(_gathered(input, 2, top, bottom), 3, left, right), unpadded
    if is_tracing() or top or bottom or left or right:
        return F.pad(input, (left, right, top, bottom)), unpadded
    return input, unpadded


def _gathered(input: Tensor, axis: int, before: int, behind: int) -> Tensor:
    """``input`` with zeros before and behind it on one axis, element by element."""
    length = input.shape[axis]
    position = torch.arange(before + length + behind, device=input.device) - before
    inside = (position >= 0) & (position < length)
    elements = input.index_select(axis, position.clamp(0, length - 1))
    return torch.where(inside[:, None] if axis == 2 else inside, elements, 0)


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
