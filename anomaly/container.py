"""How a detector's state travels: named by what made it, and sealed, so that damage is seen before it is used."""

from __future__ import annotations

import hashlib
import io
import pickle
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain, pairwise
from typing import Any, NamedTuple, Protocol, runtime_checkable

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
    found, lengths = msgspec.msgpack.decode(content[_LENGTH:begin], type=tuple[str, list[int]])
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


def pickled(model: object) -> bytes:
    """A model as bytes. Raises TypeError when it cannot be stored."""
    try:
        return pickle.dumps(model, protocol=5)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(f"{type(model).__name__} cannot be stored: {error} (a lambda inside?)") from error


def unpickled(data: bytes, packages: Collection[str]) -> Any:
    """The model again, when it is made of classes of these packages; raises whatever its classes raise."""
    return _Reader(data, packages).load()


# What river's models are made of besides river's own classes. Nothing in it runs what a pickle brings.
_PLAIN: Mapping[str, frozenset[str]] = {
    "builtins": frozenset({"bytearray", "complex", "dict", "float", "frozenset", "int", "list", "object"})
    | {"range", "set", "slice", "str", "tuple"},
    "collections": frozenset({"Counter", "OrderedDict", "defaultdict", "deque"}),
    "copyreg": frozenset({"_reconstructor"}),
    "functools": frozenset({"partial"}),
    "random": frozenset({"Random"}),
    "numpy": frozenset({"dtype", "ndarray"}),
    "numpy._core.multiarray": frozenset({"_reconstruct", "scalar"}),
    "numpy._core.numeric": frozenset({"_frombuffer"}),
}


class _Reader(pickle.Unpickler):
    """Makes classes of the packages given and plain containers; refuses everything else.

    A bucket's state is written by us alone; this keeps a slip in its policy from becoming a way in.
    """

    def __init__(self, data: bytes, packages: Collection[str]) -> None:
        super().__init__(io.BytesIO(data))
        self._packages = packages

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle names. Raises UnpicklingError when it has no place there."""
        if name in _PLAIN.get(module, ()):
            return super().find_class(module, name)
        found = super().find_class(module, name) if module.partition(".")[0] in self._packages else None
        # A name can reach what the module imported: it must be at home in the package.
        home = getattr(found, "__module__", None) or ""
        if home.partition(".")[0] not in self._packages:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a stored model")
        return found
