"""What a shard writes to, close together: a fork copies a page for each little that it writes there.

To run a function is to write to its code: Python counts references to it, and keeps with each instruction what it
learnt of it. The code of what a shard runs lies scattered among all that was imported, a function or two on a page;
copied to one place, it takes few of them. And an object of the fork's own may be put where between objects of the
host there is room; where there is none, the fork's objects have pages of their own.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, FrameType, FunctionType

_POOL, _HEADER = 1 << 14, 48  # Python has its small blocks in pools, each of one size, behind a header
_SIZES = range(16, 513, 16)
_MOST = 1 << 23  # bytes of one size, should pools be otherwise one day
_FEW = 6
_EMPTY = bytes.__basicsize__
_LARGE = 1 << 29  # from here on an integer takes 28 bytes, which is a block of 32

Codes = Mapping[int, CodeType]
"""By identity: code that is equal may be of another file."""


def run(work: Callable[[], object]) -> Codes:
    """The code of all Python functions that run in `work`, in this thread. Raises what it raises."""
    met: dict[int, CodeType] = {}

    def meet(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            met[id(frame.f_code)] = frame.f_code

    before = sys.getprofile()
    sys.setprofile(meet)
    try:
        work()
    finally:
        sys.setprofile(before)
    return met


def gather(codes: Codes) -> int:
    """Give all functions with code among `codes` copies of it, one after the other; how many functions.

    A copy has learnt nothing yet: run the functions again before a fork.
    """
    copies: dict[int, CodeType] = {}

    def copy(code: CodeType) -> CodeType:
        if id(code) not in copies:
            inner = tuple(copy(item) if isinstance(item, CodeType) else item for item in code.co_consts)
            copies[id(code)] = code.replace(co_consts=inner)
        return copies[id(code)]

    functions = [
        item for item in gc.get_objects() if type(item) is FunctionType and id(item.__code__) in codes
    ]
    for function in functions:
        function.__code__ = copy(function.__code__)
    return len(functions)


def fill() -> Sequence[object]:
    """Take the room between small objects. It is free again when what is returned goes.

    Nothing where Python's own allocator does not serve them.
    """
    kept: list[object] = []
    if os.environ.get("PYTHONMALLOC") or sys.flags.dev_mode or not sys.getallocatedblocks():
        return kept
    for size in _SIZES:
        for number in range(_MOST // size):
            block = _block(size, number)
            kept.append(block)
            if _begins(id(block), size):  # no other pool had room
                break
    return kept


def _block(size: int, number: int) -> object:
    """An object of so many bytes, that is no other's too."""
    if size == object.__basicsize__:
        return object()
    return bytes(size - _EMPTY) if size >= _EMPTY else _LARGE + number


def _begins(address: int, size: int) -> bool:
    """Whether it is among the first of its pool, and that holds no others: it begins with the count of its blocks.

    Those that are needed to find out are of some size too.
    """
    place = address % _POOL
    if place >= _HEADER + _FEW * size:
        return False
    return ctypes.c_uint.from_address(address - place).value <= _FEW
