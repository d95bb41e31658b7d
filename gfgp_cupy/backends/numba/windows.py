"""Pooling of windows of any geometry, and its gradients, a vector of windows at a time; of planes
and of volumes. A plane is a volume of depth 1.

Tensors come as 1-D arrays of their memory, contiguous or channels_last. A *segment* is a run of
windows that lie side by side in the output: a row of a plane (contiguous), or the channels of one
pixel (channels_last). Some segments, or a piece of one, are worked on at a time: their elements
are gathered into scratch memory that stays in the cache, a row for each position of the kernel, so
that window m of all rows is lane m of vectors, whatever the geometry and the layout.

An element outside the input (in the padding, or past the end in ceil mode) is stood for by the
nearest element inside, which belongs to the same window and so does not change its maximum; a bias,
``OUTSIDE`` where others have ``INSIDE``, says that it does not count.

The module is loaded once for each window function (:mod:`.loading`).
``sizes``, ``rows`` and ``columns`` are those of a plan (:mod:`.plan`).
"""

from __future__ import annotations

from .arguments import (
    constant_of,
    extras_of,
    integers,
    is_given,
    lam_parts,
    next_part,
    number,
    rows_of,
    scratch_of,
    sizes_of,
    tensor,
)
from .block import EXTRA, OF_EACH_WINDOW
from .compile import ONE, ZERO, compiled, native
from .loading import given
from .places import begin_rows, copy, fill, first_input_row, position_of
from .plan import Rows
from .simd import (
    filled,
    first_lanes,
    lanes_for,
    load,
    load_even_elements,
    spread_over_even_lanes,
    store,
    sum_of_lanes,
)

__all__ = ["backward", "forward"]

arithmetic = given(__name__, "arithmetic")
"""What a window function does with gathered elements: :mod:`.any_function.windows`, or its own."""

COLUMNS = EXTRA + len(Rows._fields)
"""Where in the block the address of a plan's ``columns`` stands."""


@native
def forward(block):
    """Pools the output rows of the block's parts. Tensors: input, λ, each window's output, and
    perhaps its spread."""
    sizes, rows = sizes_of(block), extras_of(block, Rows)
    x, lams, outputs, spreads = (
        tensor(block, 0), tensor(block, 1), tensor(block, 2), tensor(block, 3),
    )  # fmt: skip
    with_spread = is_given(block, 3)
    inside = integers(block, number(block, COLUMNS))
    at_once = max(1, rows.windows // sizes.segment)
    constant = constant_of(block)
    part = next_part(block)
    while part >= 0:
        start_row, stop_row = rows_of(block, part)
        work = scratch_of(block, part)
        fill(work, ZERO, filled(work, 0.0), rows.size)
        # Stays, where no window is cut.
        fill(work, rows.bias, filled(work, arithmetic.INSIDE), rows.length)
        stop = stop_row * sizes.segments
        for segment in range(start_row * sizes.segments, stop, at_once):
            count = min(at_once, stop - segment)
            for first in range(0, sizes.segment, rows.windows):
                length = min(rows.windows, sizes.segment - first)
                begin, windows = segment * sizes.segment + first, count * length
                _gather(sizes, rows, inside, x, lams, work, segment, count, first, length)
                arithmetic.average(work, rows, windows, with_spread, constant)
                copy(outputs, begin, work, rows.result, windows)
                if with_spread:
                    copy(spreads, begin, work, rows.further, windows)
        part = next_part(block)


@native
def backward(block):
    """The gradients that the output rows of the block's parts answer for. Tensors: the output's
    gradient, input, λ, the mean's gradient, and those to be written, of which one is perhaps not
    wanted: the input's, and the parts of λ's.

    Of the input's gradient, those are the rows from the first that the first window row reaches to
    before the first that the row after the last reaches: earlier windows that reach into them are
    computed again. So ranges of rows are independent, and the order of additions is always the
    same. Of windows with a depth they have whole planes.

    Of λ's gradient there is a part for each window, or the sum over the columns of each output
    row. The mean's gradient, one number a plane or volume (a channel of a sample), is added to each
    element's gradient.
    """
    sizes, rows = sizes_of(block), extras_of(block, Rows)
    grads, x, lams, means, x_grads, lam_grads = (
        tensor(block, 0), tensor(block, 1), tensor(block, 2), tensor(block, 3), tensor(block, 4),
        tensor(block, 5),
    )  # fmt: skip
    with_mean, with_input, with_lam = is_given(block, 3), is_given(block, 4), is_given(block, 5)
    of_each_window = lam_parts(block) == OF_EACH_WINDOW
    inside = integers(block, number(block, COLUMNS))
    at_once = max(1, rows.windows // sizes.segment)
    constant = constant_of(block)
    part = next_part(block)
    while part >= 0:
        start_row, stop_row = rows_of(block, part)
        work = scratch_of(block, part)
        fill(work, ZERO, filled(work, 0.0), rows.size)
        # Stays, where no window is cut.
        fill(work, rows.bias, filled(work, arithmetic.INSIDE), rows.length)
        own_start, own_stop = first_input_row(sizes, start_row), first_input_row(sizes, stop_row)
        begun = own_start  # input rows before this one have their first value
        earlier = _earlier_rows(sizes, start_row) if with_input else ZERO
        if with_lam and not of_each_window:
            for i in range(start_row * sizes.pixel, stop_row * sizes.pixel):
                lam_grads[i] = 0.0
        stop = stop_row * sizes.segments
        for segment in range((start_row - earlier) * sizes.segments, stop, at_once):
            count = min(at_once, stop - segment)
            for first in range(0, sizes.segment, rows.windows):
                length = min(rows.windows, sizes.segment - first)
                begin, windows = segment * sizes.segment + first, count * length
                _gather(sizes, rows, inside, x, lams, work, segment, count, first, length)
                copy(work, rows.result, grads, begin, windows)
                arithmetic.differentiate(work, rows, windows, with_lam, constant)
                if with_input:
                    reached = min(own_stop, _last_input_row(sizes, segment + count - 1))
                    begin_rows(sizes, x_grads, means, with_mean, begun, reached)
                    begun = max(begun, reached)
                    _scatter(
                        sizes, rows, inside, x_grads, work, segment, count, first, length,
                        own_start, own_stop,
                    )  # fmt: skip
                if with_lam:
                    _collect(
                        sizes, rows, lam_grads, work, segment, count, first, length, start_row,
                        of_each_window,
                    )  # fmt: skip
        if with_input:
            begin_rows(sizes, x_grads, means, with_mean, begun, own_stop)
        part = next_part(block)


# ---------------------------------------------------------------- between tensors and scratch


@compiled
def _gather(sizes, rows, columns, input, lam, scratch, segment, count, first, length):
    """λ, elements and biases of ``length`` windows of each of ``count`` segments, from window
    ``first`` of a segment on.

    What is written goes on to the end of a vector, so the order is that of the addresses.
    """
    step, run_step = _lane_step(sizes), _run_step(sizes)
    all, none = filled(scratch, arithmetic.INSIDE), filled(scratch, arithmetic.OUTSIDE)
    done = 0
    while done < count:
        plane, depth, row, column = position_of(sizes, segment + done)
        run = _run(sizes, row, column, count - done)
        at = done * length
        done += run
        lam_start = plane * sizes.lam_plane + depth * sizes.lam_depth
        lam_start += row * sizes.lam_row + column * sizes.lam_column
        _read(
            scratch,
            at,
            lam,
            lam_start + first * sizes.lam_lane,
            sizes.lam_lane,
            sizes.lam,
            length,
            run,
            length,
            sizes.lam_column if sizes.pixel > 1 else sizes.lam_row,
        )
        elements, bias = rows.elements + at, rows.bias + at
        for k in range(sizes.kernel_d):
            z = depth * sizes.stride_d + k - sizes.padding_d
            nearest_z = min(max(z, 0), sizes.depth - 1)
            for i in range(sizes.kernel_h):
                y = row * sizes.stride_h + i - sizes.padding_h
                nearest_y = min(max(y, 0), sizes.height - 1)
                edge = ((plane * sizes.depth + nearest_z) * sizes.height + nearest_y) * sizes.width
                for j in range(sizes.kernel_w):
                    x = column * sizes.stride_w + j - sizes.padding_w
                    inside = y == nearest_y and z == nearest_z
                    low, high = 0, length
                    if sizes.pixel > 1:
                        nearest_x = min(max(x, 0), sizes.width - 1)
                        inside = inside and x == nearest_x
                        begin = (edge + nearest_x) * sizes.pixel + first
                    else:
                        low, high = _clipped(columns, j, first, length)
                        begin = edge + x + (first + low) * step
                    _read(
                        scratch,
                        elements + low,
                        input,
                        begin,
                        step,
                        sizes.input,
                        high - low,
                        run,
                        length,
                        run_step,
                    )
                    if rows.bias_step > 0:
                        fill(scratch, bias, all if inside else none, run * length)
                    if low > 0 or high < length:
                        _repeat_edges(
                            scratch,
                            elements,
                            bias,
                            input,
                            edge,
                            edge + sizes.width - 1,
                            run_step,
                            run,
                            length,
                            low,
                            high,
                        )
                    elements += rows.length
                    bias += rows.bias_step


@compiled
def _repeat_edges(scratch, elements, bias, input, left, right, row_step, count, length, low, high):
    """Puts a row's first element into the windows before ``low``, its last into those from
    ``high`` on, without weight; for ``count`` rows of ``length`` windows."""
    for row in range(count):
        for window in range(length):
            if window < low or window >= high:
                at = row * length + window
                scratch[elements + at] = input[(left if window < low else right) + row * row_step]
                scratch[bias + at] = arithmetic.OUTSIDE


@compiled
def _scatter(
    sizes, rows, columns, grad_input, scratch, segment, count, first, length, own_start, own_stop
):
    """Adds the gradients of the windows' elements to those input rows that are the caller's own."""
    # Else the windows of a run share elements, and sums would depend on where it begins.
    apart = sizes.kernel_h <= sizes.stride_h
    if sizes.pixel > 1:
        apart = sizes.kernel_w <= sizes.stride_w
    separate = rows.bias_step == 0 and apart
    step, run_step = _lane_step(sizes), _run_step(sizes)
    end = own_stop * sizes.width * sizes.pixel
    done = 0
    while done < count:
        plane, depth, row, column = position_of(sizes, segment + done)
        run = _run(sizes, row, column, count - done if separate else 1)
        values = rows.weights + done * length
        done += run
        for k in range(sizes.kernel_d):
            z = depth * sizes.stride_d + k - sizes.padding_d
            for i in range(sizes.kernel_h):
                y = row * sizes.stride_h + i - sizes.padding_h
                input_row = (plane * sizes.depth + z) * sizes.height + y
                own = 0 <= z < sizes.depth and 0 <= y < sizes.height
                own = own and own_start <= input_row < own_stop
                for j in range(sizes.kernel_w):
                    x = column * sizes.stride_w + j - sizes.padding_w
                    low, high = 0, length if own and 0 <= x < sizes.width else 0
                    if sizes.pixel == 1:
                        low, high = _clipped(columns, j, first, length if own else 0)
                    begin = (input_row * sizes.width + x) * sizes.pixel + (first + low) * step
                    _add(
                        grad_input,
                        begin,
                        step,
                        end,
                        scratch,
                        values + low,
                        high - low,
                        run,
                        length,
                        run_step,
                    )
                    values += rows.length


@compiled
def _collect(
    sizes, rows, grad_lam, scratch, segment, count, first, length, start_row, of_each_window
):
    """Writes λ's gradient for each window, or adds it up: in contiguous planes over each output
    row, in channels_last for each channel of one. Rows before ``start_row`` are left out."""
    for done in range(max(0, start_row * sizes.segments - segment), count):
        at = rows.further + done * length
        row = (segment + done) // sizes.segments
        if of_each_window:
            copy(grad_lam, (segment + done) * sizes.segment + first, scratch, at, length)
        elif sizes.pixel > 1:
            begin, end = row * sizes.pixel + first, (row + 1) * sizes.pixel
            step, run_step = _lane_step(sizes), _run_step(sizes)
            _add(grad_lam, begin, step, end, scratch, at, length, ONE, length, run_step)
        else:
            grad_lam[row] += _sum(scratch, at, length)


# ---------------------------------------------------------------- runs of elements


@compiled
def _read(scratch, at, source, start, step, end, count, runs, run_length, run_step):
    """Copies every ``step``-th element of ``source`` from ``start`` on, or one if that is 0; and
    again from ``run_step`` further on to ``run_length`` further on, ``runs`` times in all.

    May write whole vectors past the ``count`` elements, and read as far, but only before ``end``.
    """
    lanes = lanes_for(scratch)
    whole = (count + lanes - 1) // lanes * lanes
    last = start + (runs - 1) * run_step + whole * step
    for _ in range(runs):
        if step == 0:
            fill(scratch, at, filled(scratch, source[start]), count)
        elif step == 1 and last <= end:
            for i in range(0, whole, lanes):
                store(scratch, at + i, load(source, start + i))
        elif step == 2 and last <= end:
            for i in range(0, whole, lanes):
                store(scratch, at + i, load_even_elements(source, start + 2 * i))
        else:
            for i in range(count):
                scratch[at + i] = source[start + i * step]
        at += run_length
        start += run_step


@compiled
def _add(target, start, step, end, scratch, at, count, runs, run_length, run_step):
    """The way back of :func:`_read`: adds to every ``step``-th element of ``target``.

    Between them and past them it may add zero, but not to elements from ``end`` on, which another
    thread may be writing.
    """
    lanes = lanes_for(scratch)
    for _ in range(runs):
        done = 0
        while step <= 2 and done < count and start + (done + lanes) * step <= end:
            values = first_lanes(load(scratch, at + done), count - done)
            place = start + done * step
            if step == 1:
                store(target, place, load(target, place) + values)
            else:
                low, high = spread_over_even_lanes(values)
                store(target, place, load(target, place) + low)
                store(target, place + lanes, load(target, place + lanes) + high)
            done += lanes
        for i in range(done, count):
            target[start + i * step] += scratch[at + i]
        at += run_length
        start += run_step


@compiled
def _sum(scratch, at, count):
    total = filled(scratch, 0.0)
    for i in range(0, count, lanes_for(scratch)):
        total = total + first_lanes(load(scratch, at + i), count - i)
    return sum_of_lanes(total)


# ---------------------------------------------------------------- where things are


@compiled
def _lane_step(sizes):
    """Elements from one window's of a segment to the next window's."""
    return 1 if sizes.pixel > 1 else sizes.stride_w


@compiled
def _run(sizes, row, column, most):
    """How many segments from this one on, up to ``most``, have their elements at equal distances:
    those of a plane that no upper or lower edge cuts (contiguous), or those of an output row that
    no left or right edge cuts (channels_last); at least this one."""
    if sizes.pixel > 1:
        place, stride, padding = column, sizes.stride_w, sizes.padding_w
        last = (sizes.width + padding - sizes.kernel_w) // stride
        last = min(last, sizes.segments - 1)
    else:
        place, stride, padding = row, sizes.stride_h, sizes.padding_h
        last = (sizes.height + padding - sizes.kernel_h) // stride
        last = min(last, sizes.out_height - 1)
    return max(1, min(most, last - place + 1)) if place * stride >= padding else 1


@compiled
def _run_step(sizes):
    """That distance, in elements of the input."""
    if sizes.pixel > 1:
        return sizes.stride_w * sizes.pixel
    return sizes.stride_h * sizes.width


@compiled
def _clipped(columns, j, first, length):
    """Of ``length`` windows from ``first`` on, those with column j of the kernel inside the
    input, relative to ``first``: from the first result to before the second."""
    low = min(max(columns[2 * j] - first, 0), length)
    return low, max(low, min(columns[2 * j + 1] - first, length))


@compiled
def _earlier_rows(sizes, output_row):
    """How many output rows before this one have windows that reach as far as it does."""
    _, depth, row, _ = position_of(sizes, output_row * sizes.segments)
    planes = min((sizes.kernel_d - 1) // sizes.stride_d, depth)
    return planes * sizes.out_height + min((sizes.kernel_h - 1) // sizes.stride_h, row)


@compiled
def _last_input_row(sizes, segment):
    """One past the last input row that a segment or one before it reaches, or in a volume the last
    of that row's plane; counted over all planes."""
    plane, depth, row, _ = position_of(sizes, segment)
    z = min(sizes.depth, depth * sizes.stride_d - sizes.padding_d + sizes.kernel_d) - 1
    y = min(sizes.height, row * sizes.stride_h - sizes.padding_h + sizes.kernel_h)
    # The last output planes may all reach the last input plane, each from its first row on.
    return (plane * sizes.depth + z) * sizes.height + (y if sizes.out_depth == 1 else sizes.height)
