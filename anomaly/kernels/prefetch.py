"""Ask for memory before it is needed: what many devices know lies far apart, and comes late when it is waited for."""

from __future__ import annotations

from typing import Any

from numba.core import cgutils, types
from numba.extending import intrinsic

from anomaly.kernels.compiled import inlined

LINE = 64  # bytes that come at once, on nearly every processor; of others too many or too few are asked for
# What so many bytes hold is in the second cache anyway, beside what others keep there: it need not be asked for.
CACHED = 2**18
_READ, _SECOND_CACHE, _DATA = 0, 2, 1  # into the first cache fewer lines can be under way at a time
_build: Any = cgutils


def _prefetch(_context: Any, array: Any, item: Any) -> Any:
    """In compiled code: ask for the line of an array's item, counted over all its axes. Nothing waits or changes."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        ir, address = _build.ir, _build.voidptr_t
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address, number, number, number])
        ask = _build.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.bitcast(builder.gep(data, [arguments[1]]), address)
        builder.call(ask, [place, number(_READ), number(_SECOND_CACHE), number(_DATA)])
        return context.get_dummy_value()

    return types.void(array, item), code


prefetch: Any = intrinsic(_prefetch)


@inlined
def ask(array: Any, row: int, size: int) -> None:
    """Ask for a row of an array, seen as rows of so many numbers."""
    ask_for_items(array, row * size, (row + 1) * size)


@inlined
def ask_for_items(array: Any, first: int, end: int) -> None:
    """Ask for some items of an array, counted over all its axes, which may begin and end amid a line."""
    for item in range(first, end, LINE // array.itemsize):
        prefetch(array, item)
    prefetch(array, end - 1)
