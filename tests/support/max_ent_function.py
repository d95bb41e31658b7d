"""Max-Ent pooling as a window function of backend ``numba``'s interface, with terms of its own.

The library has faster arithmetic for it; this is what a function from outside the library is like.
"""

from gfgp_cupy.backends.numba.compile import inlined
from gfgp_cupy.backends.numba.elements import largest, smallest, total
from gfgp_cupy.backends.numba.powers import exp2, power_of_two
from gfgp_cupy.backends.numba.shared_weights import holds as weights_hold
from gfgp_cupy.backends.numba.shared_weights import shared_scale
from gfgp_cupy.backends.numba.simd import LOG2_E, bits_where_less, chosen, zeros_like


@inlined
def theta_of(lam, constant):
    return lam


@inlined
def term_of(x, lam):
    return power_of_two(shared_scale(lam), x)


@inlined
def holds(window, lam):
    weights = total(weight, window, lam)
    return weights_hold(weights, total(weighted, window, window.reference) / weights)


@inlined
def reference_of(window, lam):
    negative = bits_where_less(lam, zeros_like(lam))
    return chosen(negative, smallest(window), largest(window)) + 0.0 * lam


@inlined
def relative_term_of(x, reference, lam):
    return exp2(lam * LOG2_E * (x - reference), 0)


@inlined
def summary_of(window, lam):
    inverse = 1.0 / total(weight, window, lam)
    centre = window.reference + total(weighted, window, window.reference) * inverse
    return inverse, centre, total(weighted, window, centre) * inverse


@inlined
def output_of(summary, lam):
    return summary[1] + summary[2]


@inlined
def sensitivity_of(window, summary, lam):
    inverse, centre, correction = summary
    return total(squared, window, (centre, correction)) * inverse


@inlined
def message_of(window, summary, lam, grad):
    inverse, centre, correction = summary
    return inverse * grad, lam, centre, correction


@inlined
def received(x, term, message):
    scale, lam, centre, correction = message
    weight = term * scale
    return weight + lam * (weight * ((x - centre) - correction))


@inlined
def weight(x, term, given):
    return term


@inlined
def weighted(x, term, centre):
    return term * (x - centre)


@inlined
def squared(x, term, about):
    deviation = (x - about[0]) - about[1]
    return term * deviation * deviation
