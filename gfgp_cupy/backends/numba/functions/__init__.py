"""Window functions for this backend: one module each, of functions of vectors (:mod:`..simd`).

A vector has one lane a window (or an element), so a function is written as for a single window.
:attr:`gfgp_cupy.window_function.WindowFunction.cpu` names the module, which may lie anywhere. It
has, all decorated with :func:`..compile.inlined` or :func:`..compile.compiled`:

- ``theta_of(parameter, constant) -> theta``: what is made of a window's parameter θ, a vector, and
  of the function's constant, a number (0 where it has none): a vector or a tuple of vectors;
- ``summary_of(window, theta) -> summary``: what stands for a window: a vector or a tuple of them;
- ``output_of(summary, theta) -> y``;
- ``sensitivity_of(window, summary, theta)``: ∂y/∂θ;
- ``message_of(window, summary, theta, grad) -> message``: what the window, whose output has the
  gradient ``grad``, sends to its elements: a vector or a tuple of them;
- ``received(x, term, message)``: the gradient that an element x gets from it.

``window`` has ``share``, one over the number of its elements inside the input; its elements are
summed up by the folds of :mod:`..elements`: ``total(f, window, given)`` is Σ f(x, term, given),
``mean(f, window, given)`` that over the number of elements; and ``largest(window)``,
``smallest(window)``. ``given`` is a vector or a tuple of them. f multiplies by the element's own
``term`` or is 0 where that is: it is 1 inside the input and 0 outside, where x is that of the
nearest element inside.

An element's own term may be more than 1: what is made of the element once and shared by all windows
that hold it where θ does not vary in a plane, such as a power. Then the module has, too:

- ``term_of(x, theta)``: the term relative to nothing;
- ``holds(window, theta) -> bits``: in which lanes such terms will do, neither too large nor too
  small; bits as those of :func:`..simd.lanes_within`;
- ``reference_of(window, theta)``: a vector, what the terms of a window in the other lanes are
  relative to, such as its largest element;
- ``relative_term_of(x, reference, theta)``: that term. Terms outside become 0.

``window.reference`` is that vector, 0 in the lanes whose terms are relative to nothing, for
``summary_of``, ``sensitivity_of`` and ``message_of``.

A NaN or an infinite element must make the output and what the window sends NaN. Nothing is to be
read from memory, so the lanes past the end of a row may hold anything.
"""
