"""Single instructions that numba has no name for; for compiled callers."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

instruction: Any = intrinsic  # without its types: they ask for the compiler's argument too


@instruction
def count_ones(typing: Any, bits: Any) -> Any:
    """Number of ones of a word."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.ctpop(values[0])

    return types.int64(types.int64), build


@instruction
def lowest(typing: Any, bits: Any) -> Any:
    """Number of the lowest one of a word that is not 0."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.cttz(values[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), build


@instruction
def words_of(typing: Any, table: Any, at: Any) -> Any:
    """Row `at` of a C-contiguous int64 [row, word] as a bare pointer, which lives as `table` does.

    A view would count references with locked instructions, a tenth of the solver's time, and each
    access would look for a negative index.
    """

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, values[0])
        width = cgutils.unpack_tuple(builder, array.shape)[1]
        return builder.gep(array.data, [builder.mul(values[1], width)])

    return types.CPointer(types.int64)(table, types.int64), build
