"""Memory prefetching: the states of many devices do not fit into the processor cache."""

from __future__ import annotations

from typing import Any

from numba.core import cgutils, types
from numba.extending import intrinsic

from anomaly.detector import AnyArray
from anomaly.kernels.compiled import inlined

Untyped = Any  # types and values of Numba's code generator, which has no type annotations

LINE = 64  # bytes of a cache line on nearly every processor
# Arrays up to this size in bytes stay in the second-level cache and need no prefetching.
CACHED = 2**18
_READ, _SECOND_CACHE, _DATA = 0, 2, 1  # the first-level cache supports fewer outstanding requests
_build: Untyped = cgutils


def _prefetch(_context: Untyped, array: Untyped, item: Untyped) -> Untyped:
    """Prefetch the cache line of an item of an array in compiled code; `item` is an index over all axes."""

    def code(context: Untyped, builder: Untyped, signature: Untyped, arguments: Untyped) -> Untyped:
        ir, address = _build.ir, _build.voidptr_t
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address, number, number, number])
        ask = _build.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.bitcast(builder.gep(data, [arguments[1]]), address)
        builder.call(ask, [place, number(_READ), number(_SECOND_CACHE), number(_DATA)])
        return context.get_dummy_value()

    return types.void(array, item), code


prefetch: Untyped = intrinsic(_prefetch)


@inlined
def ask(array: AnyArray, row: int, size: int) -> None:
    """Prefetch a row of an array that is regarded as rows of `size` items."""
    ask_for_items(array, row * size, (row + 1) * size)


@inlined
def ask_for_items(array: AnyArray, first: int, end: int) -> None:
    """Prefetch the items from `first` to `end` of an array, which may begin and end within a cache line."""
    for item in range(first, end, LINE // array.itemsize):
        prefetch(array, item)
    prefetch(array, end - 1)
