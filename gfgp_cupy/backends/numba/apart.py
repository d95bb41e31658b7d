"""Calls of compiled functions that stay calls."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils

from .simd import intrinsic

__all__ = ["apart", "usually"]


@intrinsic
def apart(typing_context, function, arguments):
    """``function(*arguments)`` of a compiled function that a loop rarely needs. It is not made a
    part of the loop, whose registers and constants it would take."""
    signature = function.get_call_type(typing_context, tuple(arguments), {})

    def generate(context, builder, sig, args):
        result = function.dispatcher.overloads[signature.args]
        context.active_code_library.add_linking_library(result.library)
        values = [builder.extract_value(args[1], i) for i in range(len(arguments))]
        callee = context.declare_function(builder.module, result.fndesc)
        _, value = context.call_conv.call_function(
            builder, callee, signature.return_type, signature.args, values, attrs=("noinline",)
        )
        return value

    return signature.return_type(function, arguments), generate


@intrinsic
def usually(typing_context, condition):
    """``condition``, which the compiler is told is nearly always true."""

    def generate(context, builder, sig, args):
        bit = ir.IntType(1)
        expect = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(bit, [bit, bit]), "llvm.expect.i1"
        )
        return builder.call(expect, [args[0], ir.Constant(bit, 1)])

    return types.boolean(condition), generate
