"""Where a plan's windows are in the tensors, and runs of elements that are filled or copied."""

from __future__ import annotations

from .compile import compiled
from .simd import filled, lanes_for, load, store

__all__ = ["begin_rows", "copy", "fill", "first_input_row", "position_of"]


@compiled
def position_of(sizes, segment):
    """The plane (or volume), and the output depth, row and column, of a segment's first window."""
    output_row = segment // sizes.segments
    output_plane = output_row // sizes.out_height
    plane = output_plane // sizes.out_depth
    return (
        plane,
        output_plane - plane * sizes.out_depth,
        output_row - output_plane * sizes.out_height,
        segment - output_row * sizes.segments,
    )


@compiled
def first_input_row(sizes, output_row):
    """The first input row, counted over all planes, that ``output_row`` reaches."""
    plane, depth, row, _ = position_of(sizes, output_row * sizes.segments)
    z = max(0, depth * sizes.stride_d - sizes.padding_d) if depth else 0
    y = max(0, row * sizes.stride_h - sizes.padding_h) if row else 0
    return (plane * sizes.depth + z) * sizes.height + y


@compiled
def begin_rows(sizes, grad_input, mean_grad, with_mean, start, stop):
    """Gives input rows from ``start`` to before ``stop`` their first value."""
    for row in range(start, stop):
        plane = row // (sizes.depth * sizes.height)
        begin = row * sizes.width * sizes.pixel
        if with_mean and sizes.pixel > 1:
            for pixel in range(begin, begin + sizes.width * sizes.pixel, sizes.pixel):
                copy(grad_input, pixel, mean_grad, plane * sizes.pixel, sizes.pixel)
        else:
            value = mean_grad[plane] if with_mean else 0.0
            length = sizes.width * sizes.pixel
            whole = length // lanes_for(grad_input) * lanes_for(grad_input)
            fill(grad_input, begin, filled(grad_input, value), whole)
            for i in range(begin + whole, begin + length):
                grad_input[i] = value


@compiled
def fill(target, start, vector, count):
    """May write whole vectors past the ``count`` elements."""
    for i in range(start, start + count, lanes_for(target)):
        store(target, i, vector)


@compiled
def copy(target, start, source, at, count):
    lanes = lanes_for(target)
    whole = count // lanes * lanes
    for i in range(0, whole, lanes):
        store(target, start + i, load(source, at + i))
    for i in range(whole, count):
        target[start + i] = source[at + i]
