"""Hypothesis strategies: what the operator may be called with."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from gfgp_cupy.geometry import PoolGeometry, pool_geometry
from tests.support.kernel_cases import DTYPES
from tests.support.memory_layouts import LAYOUTS, arranged
from tests.support.random_numbers import random_numbers
from tests.support.slow_loops import output_size

__all__ = ["Call", "calls"]


@dataclass(frozen=True)
class Call:
    """One call of the operator with 3-D or 4-D input, the numbers given by a seed."""

    kernel_size: int | tuple[int, int]
    stride: int | tuple[int, int] | None
    padding: int | tuple[int, int]
    ceil_mode: bool
    dtype: torch.dtype
    shape: tuple[int, ...]
    layout: str
    lam_shape: tuple[int, ...]
    lam_dtype: torch.dtype
    grad_layout: str
    seed: int

    @property
    def geometry(self) -> PoolGeometry:
        return pool_geometry(self.kernel_size, self.stride, self.padding, self.ceil_mode)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (*self.shape[:-2], *output_size(self.geometry, *self.shape[-2:]))

    def input(self) -> Tensor:
        return self._numbers(self.shape, self.layout, 0)

    def lam(self) -> Tensor:
        """λ of either sign, about every tenth zero."""
        lam = 2 * random_numbers(self.lam_shape, torch.float64, self.seed + 1)
        lam[random_numbers(self.lam_shape, torch.float64, self.seed + 2) > 1.3] = 0
        return lam.to(self.lam_dtype)

    def grad_output(self) -> Tensor:
        if self.grad_layout == "expanded":  # what sum() sends back
            return torch.ones((), dtype=self.dtype).expand(self.output_shape)
        return self._numbers(self.output_shape, self.grad_layout, 3)

    def _numbers(self, shape: tuple[int, ...], layout: str, seed: int) -> Tensor:
        numbers = random_numbers(shape, self.dtype, self.seed + seed)
        if len(shape) == 4:
            return arranged(numbers, layout)
        return arranged(numbers.unsqueeze(0), layout).squeeze(0)


@st.composite
def calls(draw: st.DrawFn) -> Call:
    kernel_size = draw(_int_or_pair(st.integers(1, 5)))
    height, width = kernel_size if isinstance(kernel_size, tuple) else (kernel_size,) * 2
    stride = draw(st.none() | st.just(kernel_size) | _int_or_pair(st.integers(1, 6)))
    padding = draw(
        st.just(0)
        | st.integers(0, min(height, width) // 2)
        | st.tuples(st.integers(0, height // 2), st.integers(0, width // 2))
    )
    ceil_mode = draw(st.booleans())
    geometry = pool_geometry(kernel_size, stride, padding, ceil_mode)
    plane = [draw(_lengths(geometry, axis)) for axis in (0, 1)]
    channels = draw(st.sampled_from((1, 2, 3, 5, 8, 16)))
    shape = (*draw(st.sampled_from(((), (1,), (2,), (3,)))), channels, *plane)
    output_shape = (*(shape[:-3] or (1,)), channels, *output_size(geometry, *plane))
    dtype = draw(st.sampled_from(DTYPES))
    return Call(
        kernel_size,
        stride,
        padding,
        ceil_mode,
        dtype,
        shape,
        layout=draw(st.sampled_from(tuple(LAYOUTS))),
        lam_shape=draw(_lam_shapes(output_shape)),
        lam_dtype=draw(st.sampled_from((dtype, *DTYPES))),
        grad_layout=draw(st.sampled_from((*LAYOUTS, "expanded"))),
        seed=draw(st.integers(0, 1000)),
    )


@st.composite
def _lam_shapes(draw: st.DrawFn, output_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Every shape that broadcasts, 0-d included; the published ones more often."""
    published = ((0, 0, 0, 0), (0, 1, 0, 0), (1, 1, 0, 0), (1, 0, 0, 0), (1, 1, 1, 1))
    full = draw(st.sampled_from(published) | st.tuples(*[st.integers(0, 1)] * 4))
    shape = tuple(size if keep else 1 for size, keep in zip(output_shape, full, strict=True))
    needless = next((axis for axis, size in enumerate(shape) if size > 1), 4)
    return shape[draw(st.sampled_from((0, needless))) :]


def _lengths(geometry: PoolGeometry, axis: int) -> st.SearchStrategy[int]:
    """Heights or widths that hold at least one window."""
    kernel, stride = geometry.kernel_size[axis], geometry.stride[axis]
    hangs_over = stride - 1 if geometry.ceil_mode else 0
    first = max(1, kernel - 2 * geometry.padding[axis] - hangs_over)
    return st.integers(first, first + 10) | st.sampled_from((8, 16, 32)).filter(
        lambda length: length >= first
    )


def _int_or_pair(values: st.SearchStrategy[int]) -> st.SearchStrategy:
    return values | st.tuples(values, values)
