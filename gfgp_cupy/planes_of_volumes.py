"""Volumes whose windows have a depth of 1: pooled as planes, by the functions that pool planes.

Such a volume is as many planes as it is deep. They are further channels of a contiguous tensor, and
further samples of one in channels_last_3d; either way two axes of the volume become one, in tensors
that stay where they lie.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .geometry import PoolGeometry
from .memory_format import dense, layout_of

__all__ = ["passes_of"]

DEPTH = 2
"""The volume's axis of depth."""


def passes_of(backend: Any, axes: int) -> Any:
    """``backend``'s passes for windows of so many axes: where these are volumes' and have a depth
    of 1, those for planes.

    Args:
        backend: has ``forward``, ``forward_with_spread`` and ``backward`` of
            :class:`gfgp_cupy.backends.Backend`, and may take more arguments by name.
        axes: 2 or 3.
    """
    return backend if axes == 2 else _OfVolumes(backend)


class _OfVolumes(NamedTuple):
    """The three passes; ``lam_backward`` needs to know nothing of windows."""

    backend: Any

    def forward(self, input: Tensor, lam: Tensor, geometry: PoolGeometry, **rest: Any) -> Tensor:
        planes = _planes_of(input, geometry)
        if planes is None:
            return self.backend.forward(input, lam, geometry, **rest)
        pooled = self.backend.forward(
            planes.merged(input), planes.parameter(lam), planes.geometry, **rest
        )
        return planes.parted(pooled, planes.output_shape)

    def forward_with_spread(
        self, input: Tensor, lam: Tensor, geometry: PoolGeometry, **rest: Any
    ) -> tuple[Tensor, Tensor]:
        planes = _planes_of(input, geometry)
        if planes is None:
            return self.backend.forward_with_spread(input, lam, geometry, **rest)
        pooled, spread = self.backend.forward_with_spread(
            planes.merged(input), planes.parameter(lam), planes.geometry, **rest
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
            planes.merged(grad_output), planes.merged(input), planes.parameter(lam),
            planes.geometry, needed,
            mean_grad=None if mean_grad is None else planes.of_each(mean_grad), **rest,
        )  # fmt: skip
        return (
            None if grad_input is None else planes.parted(grad_input, input.shape),
            None if grad_lam is None else planes.parameter_gradient(grad_lam, lam.shape),
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
        """Its planes, where they lie, if it is dense."""
        volume = volume.contiguous(memory_format=self.layout)
        if self.axis == 0:
            volume = volume.transpose(1, DEPTH)
        return volume.flatten(self.axis, self.axis + 1)

    def parted(self, planes: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The volume of that ``shape`` of which these are the planes."""
        return _no_view(dense(self._parted(planes, shape), self.layout))

    def of_each(self, tensor: Tensor) -> Tensor:
        """Of a ``tensor`` that broadcasts to the volume's windows, what each plane has."""
        sizes = [*tensor.shape]
        for axis in (self.axis, DEPTH):
            sizes[axis] = self.output_shape[axis]
        tensor = tensor.expand(sizes)
        if self.axis == 0:
            tensor = tensor.transpose(1, DEPTH)
        return tensor.flatten(self.axis, self.axis + 1)

    def parameter(self, parameter: Tensor) -> Tensor:
        """:meth:`of_each`, of a tensor that may also broadcast to the planes'."""
        if self._is_everywhere_the_same(parameter.shape):
            return parameter.squeeze(DEPTH)
        return self.of_each(parameter)

    def parameter_gradient(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        """The gradient of a parameter of that ``shape``, from that of :meth:`parameter`."""
        if self._is_everywhere_the_same(shape):
            return _no_view(gradient.unsqueeze(DEPTH))
        parted = self._parted(gradient, self.output_shape).sum_to_size(shape)
        return _no_view(dense(parted, torch.contiguous_format))

    def _is_everywhere_the_same(self, shape: torch.Size) -> bool:
        """Whether what has that ``shape`` has only one part along the planes' axis."""
        return shape[self.axis] == shape[DEPTH] == 1

    def _parted(self, planes: Tensor, shape: tuple[int, ...]) -> Tensor:
        parted = planes.unflatten(self.axis, (shape[self.axis], shape[DEPTH]))
        return parted.transpose(1, DEPTH) if self.axis == 0 else parted


def _planes_of(input: Tensor, geometry: PoolGeometry) -> _Planes | None:
    # Not with steps that leave planes out: one without windows needs a gradient, too.
    if geometry.kernel_size[0] != 1 or geometry.stride[0] != 1:
        return None
    return _planes(input.shape, layout_of(input), geometry)


@functools.lru_cache(maxsize=1024)
def _planes(shape: torch.Size, layout: torch.memory_format, geometry: PoolGeometry) -> _Planes:
    kernel, stride, padding, ceil_mode = geometry
    return _Planes(
        axis=1 if layout is torch.contiguous_format else 0,
        geometry=PoolGeometry(kernel[1:], stride[1:], padding[1:], ceil_mode),
        output_shape=(*shape[:2], *geometry.output_size(*shape[2:])),
        layout=layout,
    )


def _no_view(tensor: Tensor) -> Tensor:
    """The same memory as a tensor of its own: what a custom function returns cannot be changed in
    place where autograd knows that it is a view."""
    return tensor.new_empty(0).set_(tensor)  # pyright: ignore[reportArgumentType] undeclared
