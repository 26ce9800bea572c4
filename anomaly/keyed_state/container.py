"""How a detector's state travels: named by what made it, and sealed, so that damage is seen before it is used."""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, chain, pairwise
from typing import NamedTuple, Protocol, runtime_checkable

import msgspec

from anomaly.detector import Keep, StateError

Buffer = bytes | memoryview

_MAGIC = b"stream-app detector state 2\n"
_LENGTH, _CHECK = 4, 4
# As it was once written: the check came first, so that all had to be there before any of it.
_MAGIC_1, _CHECK_1 = b"stream-app detector state 1\n", 16


class Pieces(NamedTuple):
    """`length` bytes together, made while they are used: once, and one by one.

    What a piece shows may change when the next one is asked for.
    """

    length: int
    pieces: Iterable[Buffer]

    def joined(self) -> bytes:
        """All in one."""
        whole = io.BytesIO()
        for piece in self.pieces:
            whole.write(piece)
        return whole.getvalue()


@runtime_checkable
class InPieces(Protocol):
    """A detector whose state may be too large to be copied as a whole."""

    def pieces(self) -> Pieces:
        """Its `snapshot`."""
        ...

    def restore(self, state: Buffer, keep: Keep = ...) -> None:
        """As every detector's; nothing of `state` is kept."""
        ...


@contextmanager
def refusing() -> Iterator[None]:
    """Raise StateError in place of what reading stored bytes raises when these are not what they should be."""
    try:
        yield
    except StateError:
        raise
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError, MemoryError) as error:
        raise StateError(f"the stored state of a detector cannot be read: {error}") from error


def sealed(kind: str, lengths: Sequence[int], parts: Iterable[Buffer]) -> Pieces:
    """`parts` of these lengths under the name of what can read them; the same arguments give the same bytes."""
    head = msgspec.msgpack.encode((kind, lengths))
    begin = (_MAGIC, len(head).to_bytes(_LENGTH, "little"), head)
    return Pieces(sum(map(len, begin)) + sum(lengths) + _CHECK, _checked(chain(begin, parts)))


def _checked(pieces: Iterable[Buffer]) -> Iterator[Buffer]:
    check = 0
    for piece in pieces:
        check = zlib.crc32(piece, check)
        yield piece
    yield check.to_bytes(_CHECK, "little")


def seal_parts(kind: str, parts: Sequence[Buffer]) -> bytes:
    """`sealed`, in one."""
    return sealed(kind, [len(part) for part in parts], parts).joined()


def unseal_parts(kind: str, state: Buffer) -> list[memoryview] | None:
    """The parts of a sealed state, as views of it; None when it is of another kind: the detector was exchanged.

    Raises StateError when it is not a sealed state, or not the one that was sealed.
    """
    content = _content(state)
    if content is None:
        raise StateError("the stored state of a detector is damaged, or was written by another version")
    begin = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    with refusing():
        found, lengths = msgspec.msgpack.decode(content[_LENGTH:begin], type=tuple[str, list[int]])
    if min(lengths, default=0) < 0 or begin + sum(lengths) != len(content):
        raise StateError("the stored state of a detector has parts that do not make the whole")
    ends = list(accumulate(lengths, initial=begin))
    return [content[a:b] for a, b in pairwise(ends)] if found == kind else None


def _content(state: Buffer) -> memoryview | None:
    """What was sealed; None when that is not what is there."""
    view = memoryview(state)
    if view[: len(_MAGIC)] == _MAGIC:
        check = zlib.crc32(view[:-_CHECK]).to_bytes(_CHECK, "little")
        return view[len(_MAGIC) : -_CHECK] if view[-_CHECK:] == check else None
    if view[: len(_MAGIC_1)] == _MAGIC_1:
        check, content = bytes(view[len(_MAGIC_1) :][:_CHECK_1]), view[len(_MAGIC_1) + _CHECK_1 :]
        return content if hashlib.blake2b(content, digest_size=_CHECK_1).digest() == check else None
    return None
