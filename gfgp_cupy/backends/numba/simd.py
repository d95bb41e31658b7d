"""Vectors of floats for functions compiled with Numba: explicit SIMD, one IEEE operation a lane.

LLVM vectorises loops only if it can prove enough about them; with these types the vector code is
what the source says. A :class:`Vector` fills 64 bytes: one register of AVX-512, two of AVX, four
of NEON or SSE. Operators ``+ - * /`` take vectors and numbers, and may fuse into multiply-add.

Memory is reached through pointers (``pointer_to``), which Numba does not count the users of, as it
does for arrays, and which know neither bounds nor negative indices.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin, models, register_model

from .compile import compiled
from .plan import VECTOR_BYTES

if TYPE_CHECKING:
    # As compiled functions call an intrinsic: without the context. Numba has no such declaration.
    def intrinsic(function: Callable) -> Callable[..., Any]: ...

else:
    from numba.extending import intrinsic

__all__ = [
    "AHEAD",
    "LOG2_E",
    "Vector",
    "align_stack",
    "bits_where_less",
    "call_of",
    "chosen",
    "equality",
    "filled",
    "first_lanes",
    "in_all_lanes",
    "interleaved",
    "intrinsic",
    "lanes_for",
    "lanes_within",
    "load",
    "load_even_elements",
    "load_first",
    "load_part",
    "maximum",
    "minimum",
    "multiply_add",
    "pointer_to",
    "prefetch",
    "prefetch_far",
    "prefetch_to_write",
    "separated",
    "spread_over_even_lanes",
    "square_root",
    "store",
    "store_first",
    "store_part",
    "sum_of_lanes",
    "with_sign_of",
    "zeros_like",
]

AHEAD = 1024
"""Elements from what is read or written to what is fetched into the cache meanwhile."""

LOG2_E = 1.4426950408889634
"""log₂ e: exp(x) = exp2(LOG2_E · x)."""


class Vector(types.Type):
    """Numba's type of a vector of ``element``, float32 or float64."""

    def __init__(self, element: types.Float) -> None:
        self.element = element
        self.lanes = 8 * VECTOR_BYTES // element.bitwidth
        super().__init__(name=f"Vector({element})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector: Vector) -> None:
        element = manager.lookup(vector.element).get_value_type()
        super().__init__(manager, vector, ir.VectorType(element, vector.lanes))


@intrinsic
def align_stack(typing_context):
    """Lets the stack frame of the function that calls this, which stays one, begin where a line of
    the cache does, so that no vector that is kept there lies in two lines. LLVM aligns frames by
    itself only for variables, not for what registers are too few for."""

    def generate(context, builder, sig, args):
        builder.function.attributes.alignstack = VECTOR_BYTES
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), generate


# ---------------------------------------------------------------- arithmetic


class _Arithmetic(AbstractTemplate):
    def generic(self, args, kws):
        vector = next((arg for arg in args if isinstance(arg, Vector)), None)
        if vector is not None and len(args) == 2:
            return signature(
                vector, *(arg if isinstance(arg, Vector) else vector.element for arg in args)
            )


def _define_arithmetic(symbol, instruction: str) -> None:
    # Numba does not declare that it returns a decorator.
    infer_global(symbol)(  # pyright: ignore[reportOptionalCall]
        type(instruction, (_Arithmetic,), {})
    )

    def lower(context, builder, sig, args):
        values = [
            value if isinstance(kind, Vector) else in_all_lanes(builder, sig.return_type, value)
            for value, kind in zip(args, sig.args, strict=True)
        ]
        return getattr(builder, instruction)(*values, flags=("contract",))

    for kinds in ((Vector, Vector), (Vector, types.Float), (types.Float, Vector)):
        lower_builtin(symbol, *kinds)(lower)


for _symbol, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _define_arithmetic(_symbol, _instruction)


@intrinsic
def lanes_for(typing_context, pointer):
    """How many of the elements pointed to fill a vector."""

    def generate(context, builder, sig, args):
        return context.get_constant(types.intp, Vector(pointer.dtype).lanes)

    return types.intp(pointer), generate


@intrinsic
def filled(typing_context, pointer, number):
    """The vector of ``number`` in every lane, of the type of the elements pointed to."""
    vector = Vector(pointer.dtype)

    def generate(context, builder, sig, args):
        return in_all_lanes(builder, vector, args[1])

    return vector(pointer, vector.element), generate


@intrinsic
def zeros_like(typing_context, vector):
    def generate(context, builder, sig, args):
        return ir.Constant(args[0].type, None)

    return vector(vector), generate


@intrinsic
def multiply_add(typing_context, a, b, c):
    """a · b + c, rounded once where that takes one instruction; ``c`` may be a number."""

    def generate(context, builder, sig, args):
        *factors, summand = args
        if not isinstance(c, Vector):
            summand = in_all_lanes(builder, a, summand)
        return call_of(builder, a, "fmuladd", *factors, summand)

    return a(a, a, c if isinstance(c, Vector) else a.element), generate


@intrinsic
def maximum(typing_context, a, b):
    """``a`` where it is greater than ``b``, else ``b``: of two of which one is NaN, ``b``."""

    def generate(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return a(a, b), generate


@intrinsic
def minimum(typing_context, a, b):
    """``a`` where it is less than ``b``, else ``b``: of two of which one is NaN, ``b``."""

    def generate(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered("<", *args), *args)

    return a(a, b), generate


@intrinsic
def equality(typing_context, a, b):
    """1 in the lanes where two vectors are equal, else 0."""

    def generate(context, builder, sig, args):
        one = in_all_lanes(builder, a, ir.Constant(context.get_value_type(a.element), 1.0))
        equal = builder.fcmp_ordered("==", *args)
        return builder.select(equal, one, ir.Constant(args[0].type, None))

    return a(a, b), generate


@intrinsic
def bits_where_less(typing_context, a, b):
    """A number whose bit i says whether lane i of ``a`` is less than that of ``b``; NaN is not."""

    def generate(context, builder, sig, args):
        bits = builder.bitcast(builder.fcmp_ordered("<", *args), ir.IntType(a.lanes))
        return builder.zext(bits, context.get_value_type(types.intp))

    return types.intp(a, a), generate


@intrinsic
def lanes_within(typing_context, vector, least, most):
    """A number whose bit i says whether lane i is between ``least`` and ``most``; NaN is not."""

    def generate(context, builder, sig, args):
        value, *limits = args
        low, high = (in_all_lanes(builder, vector, limit) for limit in limits)
        inside = builder.and_(
            builder.fcmp_ordered(">=", value, low), builder.fcmp_ordered("<=", value, high)
        )
        bits = builder.bitcast(inside, ir.IntType(vector.lanes))
        return builder.zext(bits, context.get_value_type(types.intp))

    return types.intp(vector, vector.element, vector.element), generate


@intrinsic
def chosen(typing_context, bits, a, b):
    """``a`` in the lanes whose bit is set, ``b`` in the others."""

    def generate(context, builder, sig, args):
        bits, a, b = args
        mask = builder.trunc(bits, ir.IntType(sig.return_type.lanes))
        lanes = ir.VectorType(ir.IntType(1), sig.return_type.lanes)
        return builder.select(builder.bitcast(mask, lanes), a, b)

    return a(types.intp, a, a), generate


@intrinsic
def with_sign_of(typing_context, number, vector):
    """``number``, which is positive, with the signs of ``vector``."""

    def generate(context, builder, sig, args):
        number = in_all_lanes(builder, vector, args[0])
        return call_of(builder, vector, "copysign", number, args[1])

    return vector(vector.element, vector), generate


@intrinsic
def square_root(typing_context, vector):
    def generate(context, builder, sig, args):
        return call_of(builder, vector, "sqrt", *args)

    return vector(vector), generate


@intrinsic
def first_lanes(typing_context, vector, count):
    """The first ``count`` lanes of ``vector``, zero in the others; ``count`` may be any number."""

    def generate(context, builder, sig, args):
        lanes, limit = args
        kept = _whether_first(builder, vector, limit)
        return builder.select(kept, lanes, ir.Constant(lanes.type, None))

    return vector(vector, types.intp), generate


@intrinsic
def sum_of_lanes(typing_context, vector):
    """A number. The order of the additions is fixed when the function is compiled."""

    def generate(context, builder, sig, args):
        total = args[0]
        width = vector.lanes
        while width > 1:
            width //= 2
            halves = [_lanes(builder, total, range(start, start + width)) for start in (0, width)]
            total = builder.fadd(*halves)
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return vector.element(vector), generate


# ---------------------------------------------------------------- memory


@intrinsic
def pointer_to(typing_context, array):
    """To the first element of ``array``, valid for as long as the caller holds the array."""

    def generate(context, builder, sig, args):
        return context.make_array(array)(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), generate


@intrinsic
def load(typing_context, pointer, index):
    """The elements from ``index`` on, one a lane."""
    vector = Vector(pointer.dtype)

    def generate(context, builder, sig, args):
        return _load(context, builder, vector, *args)

    return vector(pointer, types.intp), generate


@intrinsic
def prefetch(typing_context, pointer, index):
    """Asks for the memory line of the element at ``index``, which need not exist."""
    return types.void(pointer, types.intp), _prefetching(write=0, level=1)


@intrinsic
def prefetch_far(typing_context, pointer, index):
    """The same, into the second-level cache only."""
    return types.void(pointer, types.intp), _prefetching(write=0, level=2)


@intrinsic
def prefetch_to_write(typing_context, pointer, index):
    """The same, of a line that will be written to."""
    return types.void(pointer, types.intp), _prefetching(write=1, level=1)


def _prefetching(write: int, level: int):
    def generate(context, builder, sig, args):
        place = builder.bitcast(builder.gep(args[0], [args[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [place.type, number, number, number]),
            "llvm.prefetch.p0",
        )
        builder.call(function, [place, *(ir.Constant(number, n) for n in (write, 4 - level, 1))])
        return context.get_dummy_value()

    return generate


@intrinsic
def load_first(typing_context, pointer, index, count):
    """The ``count`` elements from ``index`` on, and zero in the other lanes, which are not read;
    ``count`` may be any number."""
    vector = Vector(pointer.dtype)

    def generate(context, builder, sig, args):
        data, start, limit = args
        place = _place(context, builder, vector, data, start)
        kept = _whether_first(builder, vector, limit)
        zero = ir.Constant(context.get_value_type(vector), None)
        align = ir.Constant(ir.IntType(32), vector.element.bitwidth // 8)
        return _call_masked(builder, vector, "load", zero.type, place, align, kept, zero)

    return vector(pointer, types.intp, types.intp), generate


@intrinsic
def load_even_elements(typing_context, pointer, index):
    """Every other element from ``index`` on; twice the lanes are read."""
    vector = Vector(pointer.dtype)

    def generate(context, builder, sig, args):
        data, start = args
        ahead = builder.add(start, ir.Constant(start.type, vector.lanes))
        low, high = (_load(context, builder, vector, data, index) for index in (start, ahead))
        return _lanes(builder, low, range(0, 2 * vector.lanes, 2), high)

    return vector(pointer, types.intp), generate


@intrinsic
def separated(typing_context, low, high):
    """Two vectors: the even and the odd lanes of the vectors ``low`` and ``high``, put in a row.
    The inverse of :func:`interleaved`."""

    def generate(context, builder, sig, args):
        pair = [_lanes(builder, args[0], range(o, 2 * low.lanes, 2), args[1]) for o in (0, 1)]
        return context.make_tuple(builder, sig.return_type, pair)

    return types.UniTuple(low, 2)(low, high), generate


@intrinsic
def interleaved(typing_context, even, odd):
    """Two vectors: the lanes of ``even`` and ``odd`` in turns."""

    def generate(context, builder, sig, args):
        half = even.lanes // 2
        pair = [
            _lanes(
                builder,
                args[0],
                [lane for i in range(start, start + half) for lane in (i, even.lanes + i)],
                args[1],
            )
            for start in (0, half)
        ]
        return context.make_tuple(builder, sig.return_type, pair)

    return types.UniTuple(even, 2)(even, odd), generate


@intrinsic
def spread_over_even_lanes(typing_context, vector):
    """Two vectors: the lanes of one with a zero after each."""

    def generate(context, builder, sig, args):
        zero = ir.Constant(args[0].type, None)
        half = vector.lanes // 2
        low, high = (
            [lane for i in range(start, start + half) for lane in (i, vector.lanes)]
            for start in (0, half)
        )
        pair = [_lanes(builder, args[0], lanes, zero) for lanes in (low, high)]
        return context.make_tuple(builder, sig.return_type, pair)

    return types.UniTuple(vector, 2)(vector), generate


@intrinsic
def store(typing_context, pointer, index, vector):
    """Writes the lanes of ``vector`` to the elements from ``index`` on."""

    def generate(context, builder, sig, args):
        data, start, value = args
        place = _place(context, builder, vector, data, start)
        builder.store(value, place, align=vector.element.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, vector), generate


@intrinsic
def store_first(typing_context, pointer, index, vector, count):
    """Writes the first ``count`` lanes of ``vector``; ``count`` may be any number."""

    def generate(context, builder, sig, args):
        data, start, value, limit = args
        place = _place(context, builder, vector, data, start)
        kept = _whether_first(builder, vector, limit)
        align = ir.Constant(ir.IntType(32), vector.element.bitwidth // 8)
        _call_masked(builder, vector, "store", ir.VoidType(), value, place, align, kept)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, vector, types.intp), generate


@compiled
def load_part(source, at, left):
    """A vector, or its first ``left`` lanes and zeros."""
    if left >= lanes_for(source):
        return load(source, at)
    return load_first(source, at, left)


@compiled
def store_part(target, at, vector, left):
    """Writes a vector, or its first ``left`` lanes."""
    if left >= lanes_for(target):
        store(target, at, vector)
    else:
        store_first(target, at, vector, left)


# ---------------------------------------------------------------- pieces of LLVM code


def in_all_lanes(builder, vector: Vector, number):
    """The vector of ``number`` in every lane."""
    kind = ir.VectorType(number.type, vector.lanes)
    first = builder.insert_element(
        ir.Constant(kind, ir.Undefined), number, ir.Constant(ir.IntType(32), 0)
    )
    return _lanes(builder, first, [0] * vector.lanes)


def _lanes(builder, value, numbers, further=None):
    """A vector of lanes by their numbers, which go on from ``value`` to ``further``."""
    numbers = list(numbers)
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(numbers)), numbers)
    other = ir.Constant(value.type, ir.Undefined) if further is None else further
    return builder.shuffle_vector(value, other, mask)


def call_of(builder, vector: Vector, name: str, *args):
    """A call of LLVM's function of vectors ``name``, whose arguments and result are of one type."""
    kind = args[0].type
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(kind, [kind] * len(args)),
        f"llvm.{name}.v{vector.lanes}f{vector.element.bitwidth}",
    )
    return builder.call(function, args)


def _call_masked(builder, vector: Vector, name: str, result, *args):
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(result, [arg.type for arg in args]),
        f"llvm.masked.{name}.v{vector.lanes}f{vector.element.bitwidth}.p0",
    )
    return builder.call(function, args)


def _whether_first(builder, vector: Vector, limit):
    """Of each lane: whether its number is less than ``limit``."""
    numbers = ir.Constant(ir.VectorType(limit.type, vector.lanes), list(range(vector.lanes)))
    return builder.icmp_signed("<", numbers, in_all_lanes(builder, vector, limit))


def _load(context, builder, vector: Vector, data, index):
    place = _place(context, builder, vector, data, index)
    return builder.load(place, align=vector.element.bitwidth // 8)


def _place(context, builder, vector: Vector, data, index):
    kind = context.get_value_type(vector)
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())
