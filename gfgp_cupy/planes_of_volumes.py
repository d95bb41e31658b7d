"""Volumes whose windows have a depth of 1: pooled as planes, by the functions that pool planes.

Such a volume is as many planes as it is deep. They are further channels of a contiguous tensor, and
further samples of one in channels_last_3d; either way two axes of the volume become one, in tensors
that stay where they lie.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .geometry import PoolGeometry
from .memory_format import dense, layout_of

__all__ = ["ByPlanes"]


DEPTH = 2
"""The volume's axis of depth."""


class ByPlanes(NamedTuple):
    """The passes of ``backend`` for volumes: those for planes, where windows have a depth of 1.

    Attributes:
        backend: has the functions of :class:`gfgp_cupy.backends.Backend`; ``rest`` below is what
            they take beside the arguments named.
    """

    backend: Any

    def forward(self, input: Tensor, lam: Tensor, geometry: PoolGeometry, **rest: Any) -> Tensor:
        planes = _planes_of(input, geometry)
        if planes is None:
            return self.backend.forward(input, lam, geometry, **rest)
        pooled = self.backend.forward(
            planes.merged(input), planes.of_windows(lam), planes.geometry, **rest
        )
        return planes.parted(pooled, planes.output_shape)

    def forward_with_spread(
        self, input: Tensor, lam: Tensor, geometry: PoolGeometry, **rest: Any
    ) -> tuple[Tensor, Tensor]:
        planes = _planes_of(input, geometry)
        if planes is None:
            return self.backend.forward_with_spread(input, lam, geometry, **rest)
        pooled, spread = self.backend.forward_with_spread(
            planes.merged(input), planes.of_windows(lam), planes.geometry, **rest
        )
        shape = planes.output_shape
        return planes.parted(pooled, shape), planes.parted(spread, shape)

    def backward(
        self, grad_output: Tensor, input: Tensor, lam: Tensor, geometry: PoolGeometry,
        needed: tuple[bool, bool], mean_grad: Tensor | None = None, **rest: Any,
    ) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
        planes = _planes_of(input, geometry)
        if planes is None:
            return self.backend.backward(
                grad_output, input, lam, geometry, needed, mean_grad=mean_grad, **rest
            )
        grad_input, grad_lam = self.backend.backward(
            planes.merged(grad_output), planes.merged(input), planes.of_windows(lam),
            planes.geometry, needed,
            mean_grad=None if mean_grad is None else planes.of_windows(mean_grad), **rest,
        )  # fmt: skip
        return (
            None if grad_input is None else planes.parted(grad_input, input.shape),
            None if grad_lam is None else planes.summed(grad_lam, lam.shape),
        )


class _Planes(NamedTuple):
    """How a volume is taken for planes.

    Attributes:
        axis: of the planes, which the volume's axis of depth is a part of: 0 or 1.
        geometry: of the windows in the planes.
        output_shape: of the volume's windows, [N, C, oD, oH, oW].
        layout: the volume's memory format.
    """

    axis: int
    geometry: PoolGeometry
    output_shape: tuple[int, ...]
    layout: torch.memory_format

    def merged(self, volume: Tensor) -> Tensor:
        """Where it lies, if it is dense."""
        return self._merged(volume.contiguous(memory_format=self.layout))

    def parted(self, planes: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The volume of that ``shape`` of which these are the planes."""
        return _no_view(dense(self._parted(planes, shape), self.layout))

    def of_windows(self, parameter: Tensor) -> Tensor:
        """A ``parameter`` that broadcasts to the volume's windows, as one that broadcasts to the
        planes'."""
        if parameter.shape[self.axis] == parameter.shape[DEPTH] == 1:
            return parameter.squeeze(DEPTH)
        sizes = [*parameter.shape]
        for axis in (self.axis, DEPTH):
            sizes[axis] = self.output_shape[axis]
        return self._merged(parameter.expand(sizes))

    def summed(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        """The gradient of a parameter of that ``shape``, from that of the planes' parameter."""
        if shape[self.axis] == shape[DEPTH] == 1:
            return _no_view(gradient.unsqueeze(DEPTH))
        parted = self._parted(gradient, self.output_shape).sum_to_size(shape)
        return _no_view(dense(parted, torch.contiguous_format))

    def _merged(self, volume: Tensor) -> Tensor:
        return volume.movedim(DEPTH, self.axis + 1).flatten(self.axis, self.axis + 1)

    def _parted(self, planes: Tensor, shape: tuple[int, ...]) -> Tensor:
        parts = shape[self.axis], shape[DEPTH]
        return planes.unflatten(self.axis, parts).movedim(self.axis + 1, DEPTH)


def _planes_of(input: Tensor, geometry: PoolGeometry) -> _Planes | None:
    kernel, stride, padding, ceil_mode = geometry
    # Not with steps that leave planes out: one without windows needs a gradient, too.
    if kernel[0] != 1 or stride[0] != 1:
        return None
    layout = layout_of(input)
    return _Planes(
        axis=1 if layout is torch.contiguous_format else 0,
        geometry=PoolGeometry(kernel[1:], stride[1:], padding[1:], ceil_mode),
        output_shape=(*input.shape[:2], *geometry.output_size(*input.shape[2:])),
        layout=layout,
    )


def _no_view(tensor: Tensor) -> Tensor:
    """The same memory for autograd as a tensor of its own: what a custom function returns cannot be
    changed in place where it is a view."""
    own = tensor.new_empty(0)
    place = tensor.storage_offset(), tensor.shape, tensor.stride()
    return own.set_(tensor.untyped_storage(), *place)  # pyright: ignore[reportArgumentType]
