"""The container of serialized detector states: kind, parts, and a checksum that detects damage."""

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
# Format 1 had the checksum first, so the whole state had to exist before it could be written.
_MAGIC_1, _CHECK_1 = b"stream-app detector state 1\n", 16


class Pieces(NamedTuple):
    """Serialized state of `length` bytes as an iterable of buffers, which can be consumed once.

    The content of a buffer may change when the next one is requested.
    """

    length: int
    pieces: Iterable[Buffer]

    def joined(self) -> bytes:
        """Return all pieces as one bytes object."""
        whole = io.BytesIO()
        for piece in self.pieces:
            whole.write(piece)
        return whole.getvalue()


@runtime_checkable
class InPieces(Protocol):
    """A detector that serializes its state piece by piece, to avoid a copy of all of it."""

    def pieces(self) -> Pieces:
        """Serialize the state, with the same bytes as `snapshot`."""
        ...

    def restore(self, state: Buffer, keep: Keep = ...) -> None:
        """Load a state as `Detector.restore` does; no reference to `state` is kept."""
        ...


@contextmanager
def refusing() -> Iterator[None]:
    """Convert errors that malformed stored bytes cause to StateError."""
    try:
        yield
    except StateError:
        raise
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError, MemoryError) as error:
        raise StateError(f"cannot read the stored state of a detector: {error}") from error


def sealed(kind: str, lengths: Sequence[int], parts: Iterable[Buffer]) -> Pieces:
    """Seal parts of these lengths in a container of this kind; equal arguments give equal bytes."""
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
    """Seal parts and return the container as one bytes object."""
    return sealed(kind, [len(part) for part in parts], parts).joined()


def unseal_parts(kind: str, state: Buffer) -> list[memoryview] | None:
    """Return views of the parts of a container, None if it is of another kind (of another detector).

    Raises StateError if it is not a container or is damaged.
    """
    content = _content(state)
    if content is None:
        raise StateError("the stored state of a detector is damaged or was written by another version")
    begin = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    with refusing():
        found, lengths = msgspec.msgpack.decode(content[_LENGTH:begin], type=tuple[str, list[int]])
    if min(lengths, default=0) < 0 or begin + sum(lengths) != len(content):
        raise StateError("the parts of the stored state of a detector do not add up to its length")
    ends = list(accumulate(lengths, initial=begin))
    return [content[a:b] for a, b in pairwise(ends)] if found == kind else None


def _content(state: Buffer) -> memoryview | None:
    """Return the content of a container, None if it is not a container or its checksum is wrong."""
    view = memoryview(state)
    if view[: len(_MAGIC)] == _MAGIC:
        check = zlib.crc32(view[:-_CHECK]).to_bytes(_CHECK, "little")
        return view[len(_MAGIC) : -_CHECK] if view[-_CHECK:] == check else None
    if view[: len(_MAGIC_1)] == _MAGIC_1:
        check, content = bytes(view[len(_MAGIC_1) :][:_CHECK_1]), view[len(_MAGIC_1) + _CHECK_1 :]
        return content if hashlib.blake2b(content, digest_size=_CHECK_1).digest() == check else None
    return None
