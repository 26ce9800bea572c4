"""Decoding documents that anybody may have written: bounded in depth, and with one kind of error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, TypeVar, overload

import msgspec
import numpy as np

T = TypeVar("T")
# A record may be nested 64 levels deep; the documents that hold records add some of their own.
DEEPEST = 100
_MOST_TIME = 253_402_300_800_000  # beyond which datetime ends
# An unfinished string ends at the end, so that each byte is looked at once.
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_STEPS = np.zeros(256, dtype=np.int64)
_STEPS[[ord("["), ord("{")]] = 1
_STEPS[[ord("]"), ord("}")]] = -1


def is_time(milliseconds: int | None) -> bool:
    """Whether it can be a time in milliseconds since the epoch, before the year 10000; None can be."""
    return milliseconds is None or 0 <= milliseconds < _MOST_TIME


def is_deep(data: bytes, deepest: int = DEEPEST) -> bool:
    """Whether the arrays and objects of a JSON document are nested deeper than that, without decoding it."""
    if data.count(b"[") + data.count(b"{") <= deepest:
        return False
    outside = np.frombuffer(_STRING.sub(b"", data), dtype=np.uint8)
    return int(np.cumsum(_STEPS[outside]).max(initial=0)) > deepest


@overload
def decoded(body: bytes | str, *, deepest: int = DEEPEST) -> Any: ...
@overload
def decoded(body: bytes | str, type: type[T], *, deepest: int = DEEPEST) -> T: ...
def decoded(body: bytes | str, type: Any = Any, *, deepest: int = DEEPEST) -> Any:
    """What is in a JSON document. Raises ValueError, whatever is wrong with it."""
    try:
        data = body.encode() if isinstance(body, str) else body
        if is_deep(data, deepest):
            raise ValueError(f"it is nested more than {deepest} levels deep")
        return msgspec.json.decode(data, type=type)
    except UnicodeError:
        raise ValueError("it is not UTF-8") from None
    except (RecursionError, MemoryError, OverflowError) as error:
        raise ValueError(str(error)) from error


def plain(struct: msgspec.Struct) -> Any:
    """A struct as built-in types, its raw JSON decoded; what is nested too deep or not readable stays a text."""
    try:
        return decoded(msgspec.json.encode(struct))
    except ValueError:
        texts = {name: _as_text(value) for name, value in _raw(struct)}
        return decoded(msgspec.json.encode(msgspec.structs.replace(struct, **texts)))


def _raw(struct: msgspec.Struct) -> Iterator[tuple[str, bytes]]:
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        if isinstance(value, msgspec.Raw):
            yield name, bytes(value)


def _as_text(value: bytes) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value.decode("utf-8", "replace")))


def problem(document: Any, nodes: int, deepest: int = DEEPEST) -> str | None:
    """Why a document of built-in types is out of bounds: more values than `nodes`, or deeper. None where it is not.

    A document that holds itself, as YAML allows, is nested without end.
    """
    level, count = [document], 0
    for _ in range(deepest + 1):
        count += len(level)
        if count > nodes:
            return f"it has more than {nodes:,} values"
        # One list may stand in many places: no more of them are looked at than may be there.
        level = list(islice((inner for one in level for inner in _inside(one)), nodes + 1))
        if not level:
            return None
    return f"it is nested more than {deepest} levels deep"


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.keys()
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
