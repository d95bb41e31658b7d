"""How compiled functions read their block, whose pointer has the type of the tensors' elements."""

from __future__ import annotations

from llvmlite import ir
from numba import types

from .block import (
    CONSTANT,
    EXTRA,
    LAM_PARTS,
    PARTS,
    ROWS,
    ROWS_TOGETHER,
    SCRATCH,
    SCRATCH_SIZE,
    SIZES,
    TAKEN,
    TENSORS,
)
from .compile import compiled
from .plan import Sizes
from .simd import intrinsic

__all__ = [
    "constant_of",
    "extras_of",
    "integers",
    "is_given",
    "lam_parts",
    "next_part",
    "number",
    "rows_of",
    "scratch_of",
    "sizes_of",
    "tensor",
]


@intrinsic
def number(typing_context, block, i):
    """Number ``i`` of the block."""

    def generate(context, builder, sig, args):
        return builder.load(_place(builder, *args))

    return types.intp(block, types.intp), generate


@intrinsic
def _fields(typing_context, block, kind, start):
    """Numbers from ``start`` on, as the named tuple ``kind``."""
    fields = types.NamedUniTuple(types.intp, len(kind.instance_class._fields), kind.instance_class)

    def generate(context, builder, sig, args):
        first = _place(builder, args[0], args[2])
        places = [builder.gep(first, [ir.Constant(args[2].type, i)]) for i in range(len(fields))]
        return context.make_tuple(builder, fields, [builder.load(place) for place in places])

    return fields(block, kind, types.intp), generate


@intrinsic
def tensor(typing_context, block, i):
    """The memory of tensor ``i``."""

    def generate(context, builder, sig, args):
        address = _address(builder, *args)
        return builder.inttoptr(address, args[0].type)

    return block(block, types.intp), generate


@intrinsic
def is_given(typing_context, block, i):
    """Whether there is a tensor ``i``."""

    def generate(context, builder, sig, args):
        address = _address(builder, *args)
        return builder.icmp_signed("!=", address, ir.Constant(address.type, 0))

    return types.boolean(block, types.intp), generate


@intrinsic
def _constant(typing_context, block, i):
    def generate(context, builder, sig, args):
        numbers = builder.bitcast(args[0], ir.DoubleType().as_pointer())
        number = builder.load(builder.gep(numbers, [args[1]]))
        return context.cast(builder, number, types.float64, block.dtype)

    return block.dtype(block, types.intp), generate


@intrinsic
def _elements(typing_context, block, address, start):
    def generate(context, builder, sig, args):
        return builder.gep(builder.inttoptr(args[1], args[0].type), [args[2]])

    return block(block, types.intp, types.intp), generate


@intrinsic
def integers(typing_context, block, address):
    """The integers at an address."""

    def generate(context, builder, sig, args):
        return builder.inttoptr(args[1], args[1].type.as_pointer())

    return types.CPointer(types.intp)(block, types.intp), generate


@intrinsic
def _take(typing_context, block):
    """The next number that no thread has taken."""

    def generate(context, builder, sig, args):
        place = _place(builder, args[0], ir.Constant(ir.IntType(64), TAKEN))
        return builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.intp(block), generate


def _address(builder, block, i):
    """Of tensor ``i``; 0 if there is none."""
    return builder.load(_place(builder, block, builder.add(i, ir.Constant(i.type, TENSORS))))


def _place(builder, block, i):
    return builder.gep(builder.bitcast(block, i.type.as_pointer()), [i])


@compiled
def next_part(block):
    """The number of a part that no other thread has taken, or -1."""
    part = _take(block)
    return part if part < number(block, PARTS) else -1


@compiled
def rows_of(block, part):
    """The output rows of a part, from the first to before the second."""
    together, parts = number(block, ROWS_TOGETHER), number(block, PARTS)
    groups = number(block, ROWS) // together
    return groups * part // parts * together, groups * (part + 1) // parts * together


@compiled
def scratch_of(block, part):
    """The part's scratch memory."""
    return _elements(block, number(block, SCRATCH), part * number(block, SCRATCH_SIZE))


@compiled
def lam_parts(block):
    return number(block, LAM_PARTS)


@compiled
def constant_of(block):
    """The window function's constant, a number of the elements' type."""
    return _constant(block, CONSTANT)


@compiled
def sizes_of(block):
    return _fields(block, Sizes, SIZES)


@compiled
def extras_of(block, kind):
    """The numbers that the plan has beside the sizes, as the named tuple ``kind``."""
    return _fields(block, kind, EXTRA)
