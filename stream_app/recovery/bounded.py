"""Decodes untrusted documents with a limit on their depth and with one kind of error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, TypeVar, overload

import msgspec
import numpy as np

T = TypeVar("T")
# A record may be nested 64 levels deep; the documents that contain records add some levels.
MAX_DEPTH = 100
_MAX_TIME = 253_402_300_800_000  # the end of datetime's range
# An unterminated string extends to the end of the document, so that each byte is scanned once.
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_STEPS = np.zeros(256, dtype=np.int64)
_STEPS[[ord("["), ord("{")]] = 1
_STEPS[[ord("]"), ord("}")]] = -1


def is_time(milliseconds: int | None) -> bool:
    """Return whether it is a time in milliseconds since the epoch before the year 10000, or None."""
    return milliseconds is None or 0 <= milliseconds < _MAX_TIME


def is_deep(data: bytes, deepest: int = MAX_DEPTH) -> bool:
    """Return whether a JSON document is nested deeper than `deepest`, without decoding it."""
    if data.count(b"[") + data.count(b"{") <= deepest:
        return False
    outside = np.frombuffer(_STRING.sub(b"", data), dtype=np.uint8)
    return int(np.cumsum(_STEPS[outside]).max(initial=0)) > deepest


@overload
def decoded(body: bytes | str, *, deepest: int = MAX_DEPTH) -> Any: ...  # the decoded JSON may have any type
@overload
def decoded(body: bytes | str, type: type[T], *, deepest: int = MAX_DEPTH) -> T: ...
def decoded(body: bytes | str, type: Any = Any, *, deepest: int = MAX_DEPTH) -> Any:
    """Decode a JSON document. Raises ValueError for any error."""
    try:
        data = body.encode() if isinstance(body, str) else body
        if is_deep(data, deepest):
            raise ValueError(f"it is nested more than {deepest} levels deep")
        return msgspec.json.decode(data, type=type)
    except UnicodeError:
        raise ValueError("it is not UTF-8") from None
    except (RecursionError, MemoryError, OverflowError) as error:
        raise ValueError(str(error)) from error


def to_plain(struct: msgspec.Struct) -> object:
    """Convert a struct to built-in types and decode its raw JSON fields.

    Raw JSON that is nested too deeply or cannot be decoded stays a string.
    """
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


def size_problem(document: object, nodes: int, deepest: int = MAX_DEPTH) -> str | None:
    """Return why a document exceeds its limits, None if it does not.

    A document of built-in types may have at most `nodes` values and `deepest` levels. A document that contains
    itself, as YAML allows, exceeds the depth.
    """
    level, count = [document], 0
    for _ in range(deepest + 1):
        count += len(level)
        if count > nodes:
            return f"it has more than {nodes:,} values"
        # The same list may occur in many places: stop as soon as the limit is exceeded.
        level = list(islice((inner for one in level for inner in _inside(one)), nodes + 1))
        if not level:
            return None
    return f"it is nested more than {deepest} levels deep"


def _inside(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value.keys()
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
