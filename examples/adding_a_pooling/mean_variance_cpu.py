"""Mean-variance pooling on the CPU: functions of vectors of windows, which Numba compiles."""

from gfgp_cupy.backends.numba.compile import inlined
from gfgp_cupy.backends.numba.elements import mean


@inlined
def theta_of(weight, constant):
    return weight


@inlined
def summary_of(window, theta):
    centre = mean(element, window, window.share)
    return centre, mean(square, window, centre)


@inlined
def output_of(summary, theta):
    centre, variance = summary
    return centre + theta * variance


@inlined
def sensitivity_of(window, summary, theta):
    return summary[1]


@inlined
def message_of(window, summary, theta, grad):
    """The mean, what an element gets anyway, and what it gets for its distance from the mean."""
    centre, variance = summary
    level = grad * window.share
    return centre, level + 0.0 * variance, 2.0 * theta * level


@inlined
def received(x, term, message):
    centre, level, slope = message
    return level + slope * (x - centre)


@inlined
def element(x, term, given):
    return x * term


@inlined
def square(x, term, centre):
    return (x - centre) * term * (x - centre)
