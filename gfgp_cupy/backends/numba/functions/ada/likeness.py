"""What both of AdaPool's specialised arithmetics do: likenesses where x² + m² is in range.

With h = 2m / (x² + m²) an element's likeness is s = x h, and its derivatives are
ds/dx = −h (1 − m h) and ds/dm = −(x/m) ds/dx. So one division an element makes all of them.
"""

from __future__ import annotations

from ...compile import inlined
from ...simd import bits_where_less, equality, multiply_add, zeros_like

__all__ = ["in_range", "mean_of_parts", "part_of", "square_of", "with_size"]

LEAST, MOST = 2.0**-40, 2.0**40
"""Of m's magnitude and of the elements', where x² + m² and what is made of it are in range."""

NOTHING = 2.0**-120
"""Is added to m², so that s is 0 where x and m are both 0."""


@inlined
def square_of(middle):
    """m²."""
    return multiply_add(middle, middle, NOTHING)


@inlined
def in_range(square, squares):
    """In which lanes m², and x² summed up over the window, are in range. Windows of zeros, for
    which the rest holds, too, are not among them."""
    zero = zeros_like(square)
    return bits_where_less(zero + LEAST * LEAST, square) & bits_where_less(
        squares, zero + MOST * MOST
    )


@inlined
def part_of(weight, h, middle, distance):
    """−e^s (x − y) ds/dx, where ``distance`` is x − y."""
    return weight * ((h * (1.0 - middle * h)) * distance)


@inlined
def mean_of_parts(total, inverse, middle, share):
    """Each element's part of the derivative by m, Σ p (x − y) ds/dm; ``total`` is Σ x part, and
    ``inverse`` one over the sum of the weights."""
    # Where m is 0 all elements are, and so is the total.
    return (total * inverse) * (share / (middle + equality(middle, zeros_like(middle))))


@inlined
def with_size(gradient, term, distance, factor, base):
    """``gradient``, and what an element gets by way of its weight by size: ``factor`` times
    1 + x − y, where ``distance`` is x − c and ``base`` is ``factor`` times 1 + c − y."""
    return multiply_add(term, multiply_add(factor, distance, base), gradient)
