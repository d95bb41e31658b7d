"""Pooling of 3×3 windows at stride 2, and its gradients: each element's own term is made once.

:mod:`.windows` computes the same for any geometry; see there for the arrangement of the tensors.
Here λ does not vary inside a plane, so an element has the same own term (Max-Ent pooling's weight)
in all windows that hold it. A row of windows has its three input rows in scratch memory, even and
odd columns apart, with their terms: then window k has the elements

    left[k]  middle[k]  right[k]        where right[k] = left[k + 1]

(in channels_last, k counts channels, too, and right[k] = left[k + C]). The last of the three rows
is the next windows' first.

The module is loaded once for each window function (:mod:`.loading`).
"""

from __future__ import annotations

from .arguments import (
    constant_of,
    extras_of,
    is_given,
    lam_parts,
    next_part,
    rows_of,
    scratch_of,
    sizes_of,
    tensor,
)
from .block import OF_EACH_PLANE, OF_EACH_ROW
from .compile import ZERO, compiled, inlined, native
from .loading import given
from .plan import Strip
from .simd import (
    AHEAD,
    align_stack,
    filled,
    first_lanes,
    interleaved,
    lanes_for,
    load,
    load_part,
    prefetch,
    prefetch_far,
    prefetch_to_write,
    separated,
    store,
    store_part,
    sum_of_lanes,
)
from .strips import (
    ELEMENTS,
    FIRST,
    MIDDLE,
    TERMS,
    THIRD,
    columns_inside,
    elements_of_row,
    share_of_columns,
)

__all__ = ["backward", "forward"]

arithmetic = given(__name__, "arithmetic")
"""What a window function does with nine elements: :mod:`.any_function.overlapping`, or its own."""

HAS_FURTHER = hasattr(arithmetic, "made_of")
"""Whether that makes of an element what stands for it, its term and two further numbers, which it
reads itself for ∂y/∂θ. What rows are the first and the third follows those of terms."""


@native
def forward(block):
    """As :func:`.windows.forward`."""
    sizes, strip = sizes_of(block), extras_of(block, Strip)
    part = next_part(block)
    while part >= 0:
        start_row, stop_row = rows_of(block, part)
        _pool(
            tensor(block, 0), tensor(block, 1), tensor(block, 2), tensor(block, 3),
            is_given(block, 3), constant_of(block), sizes, strip, scratch_of(block, part),
            start_row, stop_row,
        )  # fmt: skip
        part = next_part(block)


@compiled
def _pool(
    x, lams, outputs, spreads, with_spread, constant, sizes, strip, work, start_row, stop_row
):  # fmt: skip
    align_stack()
    _begin(work, sizes, strip)
    first, third = FIRST, THIRD
    windows = sizes.segment * sizes.segments
    for row in range(start_row, stop_row):
        plane = row // sizes.out_height
        top = 2 * (row - plane * sizes.out_height) - sizes.padding_h
        if row == start_row or top <= 0:
            _take_lambdas(work, sizes, strip, lams, plane)
            _weigh_row(work, sizes, strip, constant, x, plane, top, first, with_spread)
        _weigh_row(work, sizes, strip, constant, x, plane, top + 1, MIDDLE, with_spread)
        _weigh_row(work, sizes, strip, constant, x, plane, top + 2, third, with_spread)
        for column in range(sizes.segments):
            for lane in range(0, sizes.segment, lanes_for(work)):
                k, left = column * sizes.segment + lane, sizes.segment - lane
                lam = load(work, strip.lam + (lane if sizes.pixel > 1 else 0))
                theta = arithmetic.theta_of(lam, constant)
                elements, terms = _window(work, sizes, strip, k, first, third)
                terms, weighed = arithmetic.weigh(
                    work, sizes, strip, k, left, top, elements, terms, theta
                )
                at = row * windows + k
                _fetch_next_rows(x, sizes, plane, top, k)
                prefetch_to_write(outputs, at + AHEAD)
                store_part(outputs, at, arithmetic.output_of(weighed, theta), left)
                if with_spread:
                    kept = arithmetic.kept_of(elements, terms, weighed, theta)
                    store_part(spreads, at, kept, left)
        first, third = third, first


@native
def backward(block):
    """As :func:`.windows.backward`; of λ's gradient there are sums over rows or planes."""
    sizes, strip = sizes_of(block), extras_of(block, Strip)
    part = next_part(block)
    while part >= 0:
        start_row, stop_row = rows_of(block, part)
        _send_back(
            tensor(block, 0), tensor(block, 1), tensor(block, 2), tensor(block, 3),
            tensor(block, 4), tensor(block, 5), is_given(block, 3), is_given(block, 4),
            lam_parts(block), constant_of(block), sizes, strip, scratch_of(block, part), start_row,
            stop_row,
        )  # fmt: skip
        part = next_part(block)


@compiled
def _send_back(
    grads, x, lams, means, x_grads, lam_grads, with_mean, with_input, parts, constant, sizes, strip,
    work, start_row, stop_row,
):  # fmt: skip
    align_stack()
    _begin(work, sizes, strip)
    first, third = FIRST, THIRD
    windows = sizes.segment * sizes.segments
    row_sum = filled(work, 0.0)
    # The row above reaches into the first own row of the input.
    begin = start_row - 1 if with_input and start_row % sizes.out_height > 0 else start_row
    for row in range(begin, stop_row):
        plane = row // sizes.out_height
        top = 2 * (row - plane * sizes.out_height) - sizes.padding_h
        if row == begin or top <= 0:
            _take_lambdas(work, sizes, strip, lams, plane)
            _weigh_row(work, sizes, strip, constant, x, plane, top, first, parts > 0)
            _clear_gradients(work, strip, THIRD)
        _weigh_row(work, sizes, strip, constant, x, plane, top + 1, MIDDLE, parts > 0)
        _weigh_row(work, sizes, strip, constant, x, plane, top + 2, third, parts > 0)
        own = row >= start_row
        of_lam_at = plane if parts == OF_EACH_PLANE else row
        first_row = top <= 0 or parts == OF_EACH_ROW
        if first_row:
            row_sum = filled(work, 0.0)
        for column in range(sizes.segments):
            for lane in range(0, sizes.segment, lanes_for(work)):
                k, left = column * sizes.segment + lane, sizes.segment - lane
                lam = load(work, strip.lam + (lane if sizes.pixel > 1 else 0))
                theta = arithmetic.theta_of(lam, constant)
                elements, terms = _window(work, sizes, strip, k, first, third)
                terms, weighed = arithmetic.weigh(
                    work, sizes, strip, k, left, top, elements, terms, theta
                )
                _fetch_next_rows(x, sizes, plane, top, k)
                prefetch(grads, row * windows + k + AHEAD)
                grad = load_part(grads, row * windows + k, left)
                mean = filled(work, 0.0)
                if with_mean and sizes.pixel > 1:
                    mean = load_part(means, plane * sizes.pixel + lane, left)
                message = arithmetic.message_of(elements, terms, weighed, theta, grad, parts > 0)
                sent, part = arithmetic.send(elements[0], terms[0], message)
                if with_input:
                    carried = _load_sent(work, strip, THIRD, k)
                    sent = (sent[0] + carried[0], sent[1] + carried[1], sent[2] + carried[2])
                    _give(
                        x_grads, work, sizes, strip, plane, top, own, FIRST, column, lane, sent,
                        mean,
                    )  # fmt: skip
                sent, further = arithmetic.send(elements[1], terms[1], message)
                part = arithmetic.joined(part, further)
                if with_input:
                    _give(
                        x_grads, work, sizes, strip, plane, top + 1, own, MIDDLE, column, lane,
                        sent, mean,
                    )  # fmt: skip
                sent, further = arithmetic.send(elements[2], terms[2], message)
                part = arithmetic.joined(part, further)
                if with_input:
                    _store_sent(work, strip, THIRD, k, left, sent)
                if sizes.pixel == 1:
                    row_sum = row_sum + first_lanes(part, left)
                elif parts > 0 and own:
                    at = of_lam_at * sizes.pixel + lane
                    if column > 0 or not first_row:
                        part = part + load_part(lam_grads, at, left)
                    store_part(lam_grads, at, part, left)
        if parts > 0 and own and sizes.pixel == 1:
            lam_grads[of_lam_at] = sum_of_lanes(row_sum)
        if with_input and own:
            if sizes.pixel == 1:
                _give_row(x_grads, work, sizes, strip, means, with_mean, plane, top, FIRST, ZERO)
                _give_row(
                    x_grads, work, sizes, strip, means, with_mean, plane, top + 1, MIDDLE, ZERO
                )
            else:
                # The columns that no window has in its middle or on its left.
                rest = 2 * sizes.segments - sizes.padding_w
                _give_row(x_grads, work, sizes, strip, means, with_mean, plane, top, FIRST, rest)
                _give_row(
                    x_grads, work, sizes, strip, means, with_mean, plane, top + 1, MIDDLE, rest
                )
            if (row + 1) % sizes.out_height == 0:
                # The last row that windows reach, and those below it, to which nothing is sent.
                for y in range(top + 2, sizes.height):
                    _give_row(x_grads, work, sizes, strip, means, with_mean, plane, y, THIRD, ZERO)
                    _clear_gradients(work, strip, THIRD)
        first, third = third, first


# ---------------------------------------------------------------- scratch memory


@inlined
def _window(scratch, sizes, strip, k, first, third):
    """A vector of windows, rows of three: their elements and terms."""
    x = (
        elements_of_row(scratch, sizes, strip, first, ELEMENTS, k),
        elements_of_row(scratch, sizes, strip, MIDDLE, ELEMENTS, k),
        elements_of_row(scratch, sizes, strip, third, ELEMENTS, k),
    )
    terms = (
        elements_of_row(scratch, sizes, strip, first, TERMS, k),
        elements_of_row(scratch, sizes, strip, MIDDLE, TERMS, k),
        elements_of_row(scratch, sizes, strip, third, TERMS, k),
    )
    if HAS_FURTHER:
        return x, (terms[0], terms[1], terms[2], (first, third))
    return x, terms


@compiled
def _begin(scratch, sizes, strip):
    """What stays: zeros where no window's gradient is written, and which columns are inside."""
    nothing = filled(scratch, 0.0)
    stop = strip.size if HAS_FURTHER else strip.further * strip.length
    for at in range(0, stop, lanes_for(scratch)):
        store(scratch, at, nothing)
    even = strip.inside * strip.length + strip.margin
    odd = even + strip.length
    for column in range(sizes.width):
        at = (odd if column % 2 else even) + column // 2 * sizes.pixel
        for i in range(sizes.pixel):
            scratch[at + i] = 1.0
    for k in range(0, sizes.segment * sizes.segments, lanes_for(scratch)):
        left, middle, right = columns_inside(scratch, sizes, strip, k)
        store(scratch, share_of_columns(strip, k), 1.0 / (left + middle + right))


@compiled
def _take_lambdas(scratch, sizes, strip, lam, plane):
    """λ of the plane, or of a pixel's channels."""
    if sizes.pixel == 1:
        store(scratch, strip.lam, filled(scratch, lam[plane * sizes.lam_plane]))
    else:
        _copy(scratch, strip.lam, lam, plane * sizes.lam_plane, sizes.pixel)


@compiled
def _weigh_row(scratch, sizes, strip, constant, x, plane, y, slot, for_theta):
    """Brings input row ``y``, or the nearest inside, and its terms into a row of scratch."""
    lanes = lanes_for(scratch)
    even = 4 * slot * strip.length + strip.margin
    odd = even + strip.length
    to_terms = 2 * strip.length
    nearest = min(max(y, 0), sizes.height - 1)
    begin = (plane * sizes.height + nearest) * sizes.width * sizes.pixel
    if sizes.pixel == 1:
        scale = arithmetic.scale_of(load(scratch, strip.lam), constant)
        for i in range(0, sizes.width, 2 * lanes):
            left = sizes.width - i
            a, b = separated(
                load_part(x, begin + i, left), load_part(x, begin + i + lanes, left - lanes)
            )
            _put(scratch, strip, even + i // 2, a, scale, for_theta)
            _put(scratch, strip, odd + i // 2, b, scale, for_theta)
    else:
        for column in range(sizes.width):
            to = (odd if column % 2 else even) + column // 2 * sizes.pixel
            at = begin + column * sizes.pixel
            for channel in range(0, sizes.pixel, lanes):
                scale = arithmetic.scale_of(load(scratch, strip.lam + channel), constant)
                value = load_part(x, at + channel, sizes.pixel - channel)
                _put(scratch, strip, to + channel, value, scale, for_theta)
    if y != nearest:
        nothing = filled(scratch, 0.0)
        for i in range(0, 2 * strip.length, lanes):
            store(scratch, 4 * slot * strip.length + to_terms + i, nothing)
    # Columns outside: the nearest inside, without a term.
    if sizes.padding_w > 0:
        _put_outside(scratch, odd - sizes.pixel, even, to_terms, sizes.pixel)
    last = (
        2 * sizes.segments - sizes.padding_w
        if sizes.pixel > 1
        else (2 * sizes.segment - sizes.padding_w)
    )
    for column in range(sizes.width, last + 1):
        to = (odd if column % 2 else even) + column // 2 * sizes.pixel
        edge = sizes.width - 1
        source = (odd if edge % 2 else even) + edge // 2 * sizes.pixel
        _put_outside(scratch, to, source, to_terms, sizes.pixel)


@compiled
def _fetch_next_rows(x, sizes, plane, top, k):
    """Asks for what the next row of windows will read of the input, while this one is computed."""
    length = sizes.width * sizes.pixel
    at = (plane * sizes.height + top + 3) * length + 2 * k
    if length < AHEAD // 2:
        at += AHEAD
    lanes = lanes_for(x)
    prefetch_far(x, at)
    prefetch_far(x, at + lanes)
    prefetch_far(x, at + length)
    prefetch_far(x, at + length + lanes)


if HAS_FURTHER:

    @compiled
    def _put(scratch, strip, at, value, scale, for_theta):
        element, term, further, furthest = arithmetic.made_of(value, scale)
        store(scratch, at, element)
        store(scratch, at + 2 * strip.length, term)
        if for_theta:
            store(scratch, at + strip.further * strip.length, further)
            store(scratch, at + (strip.further + 2) * strip.length, furthest)

else:

    @compiled
    def _put(scratch, strip, at, value, scale, for_theta):
        store(scratch, at, value)
        store(scratch, at + 2 * strip.length, arithmetic.term_of(value, scale))


@compiled
def _put_outside(scratch, at, source, to_terms, count):
    for i in range(count):
        scratch[at + i] = scratch[source + i]
        scratch[at + i + to_terms] = 0.0


@compiled
def _sent_row(strip, slot):
    return (strip.sent + 3 * slot) * strip.length + strip.margin


@inlined
def _store_sent(scratch, strip, slot, k, left, sent):
    """What windows from ``k`` on send to their elements of a row."""
    at = _sent_row(strip, slot) + k
    store_part(scratch, at, sent[0], left)
    store_part(scratch, at + strip.length, sent[1], left)
    store_part(scratch, at + 2 * strip.length, sent[2], left)


@inlined
def _load_sent(scratch, strip, slot, k):
    at = _sent_row(strip, slot) + k
    return (
        load(scratch, at),
        load(scratch, at + strip.length),
        load(scratch, at + 2 * strip.length),
    )


@compiled
def _clear_gradients(scratch, strip, slot):
    begin = (strip.sent + 3 * slot) * strip.length
    nothing = filled(scratch, 0.0)
    for at in range(begin, begin + 3 * strip.length, lanes_for(scratch)):
        store(scratch, at, nothing)


# ---------------------------------------------------------------- tensors


@compiled
def _give_row(x_grads, scratch, sizes, strip, means, with_mean, plane, y, slot, first):
    """Writes the gradient of input row ``y``, if there is one, from column ``first`` on: what its
    windows have sent."""
    if y < 0 or y >= sizes.height:
        return
    lanes = lanes_for(scratch)
    begin = (plane * sizes.height + y) * sizes.width * sizes.pixel
    left_row = _sent_row(strip, slot)
    middle_row, right_row = left_row + strip.length, left_row + 2 * strip.length
    # An element at a window's side has two windows, the second to its right.
    if sizes.padding_w == 0:
        right_row -= sizes.pixel
    else:
        left_row += sizes.pixel
    if sizes.pixel == 1:
        mean = filled(scratch, means[plane] if with_mean else 0.0)
        for i in range(0, sizes.width, 2 * lanes):
            k, left = i // 2, sizes.width - i
            side = load(scratch, right_row + k) + load(scratch, left_row + k) + mean
            middle = load(scratch, middle_row + k) + mean
            if sizes.padding_w == 0:
                low, high = interleaved(side, middle)
            else:
                low, high = interleaved(middle, side)
            prefetch_to_write(x_grads, begin + i + AHEAD)
            prefetch_to_write(x_grads, begin + i + AHEAD + lanes)
            store_part(x_grads, begin + i, low, left)
            store_part(x_grads, begin + i + lanes, high, left - lanes)
        return
    for column in range(first, sizes.width):
        k, at = column // 2 * sizes.pixel, begin + column * sizes.pixel
        at_side = column % 2 == sizes.padding_w
        for channel in range(0, sizes.pixel, lanes):
            left = sizes.pixel - channel
            value = filled(scratch, 0.0)
            if with_mean:
                value = load_part(means, plane * sizes.pixel + channel, left)
            if at_side:
                value = value + (
                    load(scratch, right_row + k + channel) + load(scratch, left_row + k + channel)
                )
            else:
                value = value + load(scratch, middle_row + k + channel)
            prefetch_to_write(x_grads, at + channel + AHEAD)
            store_part(x_grads, at + channel, value, left)


@inlined
def _give(x_grads, scratch, sizes, strip, plane, y, own, slot, column, lane, sent, mean):
    """Passes on what windows send to their elements of row ``y``: to the gradient in
    channels_last; to scratch memory where the neighbouring lanes are other windows."""
    k, left = column * sizes.segment + lane, sizes.segment - lane
    if sizes.pixel == 1:
        _store_sent(scratch, strip, slot, k, left, sent)
        return
    right = _sent_row(strip, slot) + 2 * strip.length + k
    store_part(scratch, right, sent[2], left)
    if not own or y < 0 or y >= sizes.height:
        return
    at_side = 2 * column - sizes.padding_w
    at = ((plane * sizes.height + y) * sizes.width + at_side) * sizes.pixel + lane
    prefetch_to_write(x_grads, at + AHEAD)
    prefetch_to_write(x_grads, at + AHEAD + sizes.pixel)
    if at_side >= 0:
        side = sent[0] + load(scratch, right - sizes.pixel) + mean
        store_part(x_grads, at, side, left)
    if at_side + 1 < sizes.width:
        store_part(x_grads, at + sizes.pixel, sent[1] + mean, left)


@compiled
def _copy(target, start, source, at, count):
    lanes = lanes_for(target)
    for i in range(0, count, lanes):
        store_part(target, start + i, load_part(source, at + i, count - i), count - i)
