"""AdaPool's arithmetic on 2×2 windows: weights e^x that are relative to nothing, where they hold.

Windows in the other lanes, and those whose x² + m² is out of range, which are rare, are computed as
any others (:mod:`.`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ...compile import compiled, inlined
from ...elements import Four, largest
from ...powers import power_of_two
from ...shared_weights import holds
from ...simd import LOG2_E, chosen, lanes_for, lanes_within, multiply_add, zeros_like
from . import difference, message_of, mixed, received, sensitivity_of, summary_of
from . import output_of as output_of_summary
from .exp_of_likeness import exp_of_likeness
from .likeness import in_range, mean_of_parts, part_of, square_of, with_size

__all__ = ["differentiate", "joined", "kept_of", "output_of", "theta_of", "weigh"]


class ByLikeness(NamedTuple):
    """Attributes:
    holding: in which lanes this holds.
    middle: the windows' plain means m.
    distances: of the elements from m.
    h, weights: of the elements, see :mod:`.likeness`.
    inverse, shift: one over the sum of the weights, and what their mean is more than m.
    """

    holding: Any
    middle: Any
    distances: Any
    h: Any
    weights: Any
    inverse: Any
    shift: Any


class BySize(NamedTuple):
    """Attributes:
    total: the sum of the weights, which are relative to nothing.
    most: the windows' largest elements r.
    distances: of the elements from r.
    weights: of the elements.
    inverse, shift: one over the sum of the weights, and what their mean is more than r.
    """

    total: Any
    most: Any
    distances: Any
    weights: Any
    inverse: Any
    shift: Any


@inlined
def theta_of(beta, constant):
    return beta


@inlined
def weigh(memory, x, beta, left):
    """The elements, and the bits of the lanes that are the windows' own."""
    # The rest waits until it is known whether β is 1: a path of its own for each keeps the
    # processor busy.
    return x, (1 << min(left, lanes_for(memory))) - 1


@inlined
def output_of(weighed, beta):
    x, own = weighed
    if _is_one(beta, own):
        by_likeness = _weigh_by_likeness(x, own)
        holding = by_likeness.holding
        output = by_likeness.middle + by_likeness.shift
    else:
        by_size = _weigh_by_size(x)
        by_likeness = _weigh_by_likeness(x, own)
        holding = _both_hold(by_likeness, by_size)
        middle, shift = by_likeness.middle, by_likeness.shift
        output = mixed(middle, shift, by_size.most, by_size.shift, beta)
    if holding & own != own:
        return chosen(holding, output, _output_exactly(x, beta))
    return output


@inlined
def kept_of(x, weighed, beta):
    own = weighed[1]
    by_size = _weigh_by_size(x)
    by_likeness = _weigh_by_likeness(x, own)
    holding = _both_hold(by_likeness, by_size)
    kept = _difference(by_likeness, by_size)
    if holding & own != own:
        return chosen(holding, kept, _kept_exactly(x, beta))
    return kept


@inlined
def differentiate(x, weighed, beta, grad, with_theta):
    """The elements' gradients, and β's if it is wanted."""
    own = weighed[1]
    if with_theta or not _is_one(beta, own):
        # First what does not wait for m.
        by_size = _weigh_by_size(x)
        by_likeness = _weigh_by_likeness(x, own)
        gradients = _gradients_by_likeness(x, by_likeness, beta * grad)
        holding = _both_hold(by_likeness, by_size)
        of_theta = _difference(by_likeness, by_size) * grad
        terms, distances, factor = (
            by_size.weights, by_size.distances, (1.0 - beta) * grad * by_size.inverse
        )  # fmt: skip
        base = factor * (1.0 - by_size.shift)
        gradients = (
            with_size(gradients[0], terms[0], distances[0], factor, base),
            with_size(gradients[1], terms[1], distances[1], factor, base),
            with_size(gradients[2], terms[2], distances[2], factor, base),
            with_size(gradients[3], terms[3], distances[3], factor, base),
        )
    else:
        by_likeness = _weigh_by_likeness(x, own)
        gradients = _gradients_by_likeness(x, by_likeness, beta * grad)
        of_theta, holding = zeros_like(grad), by_likeness.holding
    if holding & own != own:
        exactly, of_theta_exactly = _differentiate_exactly(x, beta, grad)
        return (
            chosen(holding, gradients[0], exactly[0]),
            chosen(holding, gradients[1], exactly[1]),
            chosen(holding, gradients[2], exactly[2]),
            chosen(holding, gradients[3], exactly[3]),
        ), chosen(holding, of_theta, of_theta_exactly)
    return gradients, of_theta


@inlined
def joined(of_theta):
    return of_theta


@inlined
def _is_one(beta, own):
    """Whether β is 1 in all lanes of the windows' own, which then have no weights e^x."""
    return lanes_within(beta, 1.0, 1.0) & own == own


@inlined
def _weigh_by_likeness(x, own):
    middle = ((x[0] + x[1]) + (x[2] + x[3])) * 0.25
    square, twice = square_of(middle), middle + middle
    squares = (
        multiply_add(x[0], x[0], square),
        multiply_add(x[1], x[1], square),
        multiply_add(x[2], x[2], square),
        multiply_add(x[3], x[3], square),
    )
    holding = in_range(square, (squares[0] + squares[1]) + (squares[2] + squares[3]))
    mean_is_zero = lanes_within(middle, 0.0, 0.0) & own
    if mean_is_zero != 0:
        holding |= _where_zero(x) & mean_is_zero
    h = twice / squares[0], twice / squares[1], twice / squares[2], twice / squares[3]
    weights = (
        exp_of_likeness(x[0] * h[0]),
        exp_of_likeness(x[1] * h[1]),
        exp_of_likeness(x[2] * h[2]),
        exp_of_likeness(x[3] * h[3]),
    )
    distances = x[0] - middle, x[1] - middle, x[2] - middle, x[3] - middle
    inverse = 1.0 / ((weights[0] + weights[1]) + (weights[2] + weights[3]))
    shift = _moment(weights, distances) * inverse
    return ByLikeness(holding, middle, distances, h, weights, inverse, shift)


@inlined
def _weigh_by_size(x):
    most = largest(_window(x))
    scale = zeros_like(x[0]) + LOG2_E
    terms = (
        power_of_two(scale, x[0]),
        power_of_two(scale, x[1]),
        power_of_two(scale, x[2]),
        power_of_two(scale, x[3]),
    )
    total = (terms[0] + terms[1]) + (terms[2] + terms[3])
    inverse = 1.0 / total
    distances = x[0] - most, x[1] - most, x[2] - most, x[3] - most
    shift = _moment(terms, distances) * inverse
    return BySize(total, most, distances, terms, inverse, shift)


@inlined
def _both_hold(by_likeness, by_size):
    """In which lanes both means hold."""
    return by_likeness.holding & holds(by_size.total, by_likeness.middle)


@inlined
def _difference(by_likeness, by_size):
    return difference(by_likeness.middle, by_likeness.shift, by_size.most, by_size.shift)


@inlined
def _gradients_by_likeness(x, by_likeness, grad):
    _, middle, distances, h, weights, inverse, shift = by_likeness
    parts = (
        part_of(weights[0], h[0], middle, distances[0] - shift),
        part_of(weights[1], h[1], middle, distances[1] - shift),
        part_of(weights[2], h[2], middle, distances[2] - shift),
        part_of(weights[3], h[3], middle, distances[3] - shift),
    )
    by_mean = mean_of_parts(_moment(parts, x), inverse, middle, 0.25) * grad
    factor = grad * inverse
    return (
        multiply_add(factor, weights[0] - parts[0], by_mean),
        multiply_add(factor, weights[1] - parts[1], by_mean),
        multiply_add(factor, weights[2] - parts[2], by_mean),
        multiply_add(factor, weights[3] - parts[3], by_mean),
    )


@inlined
def _moment(w, x):
    return multiply_add(w[1], x[1], w[0] * x[0]) + multiply_add(w[3], x[3], w[2] * x[2])


@compiled
def _where_zero(x):
    """In which lanes all elements are 0."""
    first = lanes_within(x[0], 0.0, 0.0) & lanes_within(x[1], 0.0, 0.0)
    return first & lanes_within(x[2], 0.0, 0.0) & lanes_within(x[3], 0.0, 0.0)


@inlined
def _window(x):
    one = zeros_like(x[0]) + 1.0
    return Four(zeros_like(one) + 0.25, zeros_like(one), x, (one, one, one, one))


@compiled
def _output_exactly(x, beta):
    return output_of_summary(summary_of(_window(x), beta), beta)


@compiled
def _kept_exactly(x, beta):
    window = _window(x)
    return sensitivity_of(window, summary_of(window, beta), beta)


@compiled
def _differentiate_exactly(x, beta, grad):
    window = _window(x)
    summary = summary_of(window, beta)
    message = message_of(window, summary, beta, grad)
    gradients = (
        received(x[0], 1.0, message),
        received(x[1], 1.0, message),
        received(x[2], 1.0, message),
        received(x[3], 1.0, message),
    )
    return gradients, sensitivity_of(window, summary, beta) * grad
