"""Log-sum-exp pooling's arithmetic on 2×2 windows.

Seen from the window's mean c an element has z = λ (x − c), and λ (y − c) = log(1 + q), where
q = mean (e^z − 1). λ² ∂y/∂λ is the softmax's mean of z less log(1 + q): two numbers that are not
much larger than their difference, unless z is large for some element or c is rounded by more than
elements differ. Then it is made as in :mod:`.`, and so is everything where q does not hold.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ...apart import apart, usually
from ...compile import compiled, inlined
from ...elements import Four
from ...near_one import log_by_halves
from ...shared_weights import all_hold
from ...simd import (
    bits_where_less,
    chosen,
    filled,
    maximum,
    multiply_add,
    square_root,
    zeros_like,
)
from ..log_mean_exp import exponent_of, hold, part_of_derivative
from . import message_of, received, sensitivity_of, summary_of
from . import output_of as output_of_summary
from .exponentials import exponential, power_in_parts

__all__ = ["differentiate", "joined", "kept_of", "output_of", "theta_of", "weigh"]

MOST_RATIO = 3.0
"""Of log(1 + q) to the difference."""


class Weighed(NamedTuple):
    """Windows as their derivatives are made of them.

    Attributes:
        powers: e^z of the four elements.
        inverse_total: one over 1 + q.
        holding: the bits of the lanes in which q holds.
        sensitivity: ∂y/∂λ, as a difference.
        sound: the bits of the lanes in which that will do.
        centre, logarithm: c and log(1 + q).
    """

    powers: Any
    inverse_total: Any
    holding: Any
    sensitivity: Any
    sound: Any
    centre: Any
    logarithm: Any


@inlined
def theta_of(lam, constant):
    return exponent_of(lam)


@inlined
def weigh(memory, x, exponent, left):
    """The windows, and how many there are: the two passes make different things of them."""
    return x, memory, left


@inlined
def output_of(weighed, exponent):
    x, memory, left = weighed
    centre = _mean(x)
    q = 0.25 * (
        (_less_one(x[0] - centre, exponent) + _less_one(x[1] - centre, exponent))
        + (_less_one(x[2] - centre, exponent) + _less_one(x[3] - centre, exponent))
    )
    output = centre + log_by_halves(q + 1.0, q) * exponent.inverse
    holding = hold(q, exponent.theta)
    if usually(all_hold(memory, holding, left)):
        return output
    return chosen(holding, output, apart(_output_exactly, (_window(memory, x), exponent)))


@inlined
def kept_of(x, weighed, exponent):
    """The root of ∂y/∂λ."""
    _, memory, left = weighed
    weighed = _weighed(x, exponent)
    sensitivity = _sensitivity(memory, x, weighed, exponent, left)
    if not usually(all_hold(memory, weighed.holding, left)):
        window = _window(memory, x)
        exact = apart(_sensitivity_exactly, (window, exponent))
        sensitivity = chosen(weighed.holding, sensitivity, exact)
    return square_root(sensitivity)


@inlined
def differentiate(x, weighed, exponent, grad, with_theta):
    """The elements' gradients, and λ's if it is wanted."""
    _, memory, left = weighed
    weighed = _weighed(x, exponent)
    powers, holding = weighed.powers, weighed.holding
    factor = grad * (0.25 * weighed.inverse_total)
    gradients = powers[0] * factor, powers[1] * factor, powers[2] * factor, powers[3] * factor
    sensitivity = zeros_like(grad)
    if with_theta:
        sensitivity = _sensitivity(memory, x, weighed, exponent, left)
    if not usually(all_hold(memory, holding, left)):
        exact, exact_sensitivity = apart(
            _differentiated_exactly, (_window(memory, x), exponent, grad)
        )
        gradients = (
            chosen(holding, gradients[0], exact[0]),
            chosen(holding, gradients[1], exact[1]),
            chosen(holding, gradients[2], exact[2]),
            chosen(holding, gradients[3], exact[3]),
        )
        sensitivity = chosen(holding, sensitivity, exact_sensitivity)
    return gradients, sensitivity * grad


@inlined
def joined(of_theta):
    return of_theta


@inlined
def _weighed(x, exponent):
    theta, centre = exponent.theta, _mean(x)
    a, b = exponential(theta, x[0] - centre), exponential(theta, x[1] - centre)
    c, d = exponential(theta, x[2] - centre), exponential(theta, x[3] - centre)
    # The centre is rounded, so the mean of z need not be 0.
    of_z = 0.25 * ((a.z + b.z) + (c.z + d.z))
    rest = 0.25 * ((a.less_line + b.less_line) + (c.less_line + d.less_line))
    moment = 0.25 * (
        multiply_add(a.z, a.less_one, b.z * b.less_one)
        + multiply_add(c.z, c.less_one, d.z * d.less_one)
    )
    q = rest + of_z
    total = q + 1.0
    inverse_total = 1.0 / total
    logarithm = log_by_halves(total, q)
    minus_logarithm = zeros_like(q) - logarithm
    difference = multiply_add(minus_logarithm, q, (moment + of_z) + minus_logarithm)
    difference = difference * inverse_total
    unsound = bits_where_less(difference * MOST_RATIO, logarithm) | bits_where_less(
        rest, maximum(of_z, zeros_like(q) - of_z)
    )
    return Weighed(
        (a.power, b.power, c.power, d.power),
        inverse_total,
        hold(q, theta),
        difference * exponent.inverse * exponent.inverse,
        ~unsound,
        centre,
        logarithm,
    )


@inlined
def _sensitivity(memory, x, weighed, exponent, left):
    sound = weighed.sound | ~weighed.holding
    if usually(all_hold(memory, sound, left)):
        return weighed.sensitivity
    of_distances = apart(_sensitivity_by_distances, (x, weighed, exponent))
    return chosen(weighed.sound, weighed.sensitivity, of_distances)


@compiled
def _sensitivity_by_distances(x, weighed, exponent):
    shift = weighed.logarithm * exponent.inverse
    given = weighed.centre, shift, weighed.inverse_total, exponent
    powers = weighed.powers
    parts = (_part(x[0], powers[0], given) + _part(x[1], powers[1], given)) + (
        _part(x[2], powers[2], given) + _part(x[3], powers[3], given)
    )
    return 0.25 * parts * exponent.inverse * exponent.inverse


@inlined
def _part(x, power, given):
    centre, shift, inverse_total, exponent = given
    return part_of_derivative((x - centre) - shift, power * inverse_total, exponent.theta)


@inlined
def _mean(x):
    return 0.25 * ((x[0] + x[1]) + (x[2] + x[3]))


@inlined
def _less_one(distance, exponent):
    part, factor = power_in_parts(exponent.scale, distance)
    return multiply_add(part, factor, factor - 1.0)


# ---------------------------------------------------------------- where q does not hold


@inlined
def _window(memory, x):
    one = filled(memory, 1.0)
    return Four(filled(memory, 0.25), filled(memory, 0.0), x, (one, one, one, one))


@compiled
def _output_exactly(window, exponent):
    return output_of_summary(summary_of(window, exponent), exponent)


@compiled
def _sensitivity_exactly(window, exponent):
    return sensitivity_of(window, summary_of(window, exponent), exponent)


@compiled
def _differentiated_exactly(window, exponent, grad):
    summary, x = summary_of(window, exponent), window.x
    message = message_of(window, summary, exponent, grad)
    return (
        received(x[0], window.share, message),
        received(x[1], window.share, message),
        received(x[2], window.share, message),
        received(x[3], window.share, message),
    ), sensitivity_of(window, summary, exponent)
