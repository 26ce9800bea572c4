"""How a detector's state travels: named by what made it, and sealed, so that damage is seen before it is used."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import msgspec

from anomaly.detector import StateError

Buffer = bytes | memoryview

_MAGIC = b"stream-app detector state 1\n"
_DIGEST, _LENGTH = 16, 4


def seal_parts(kind: str, parts: Sequence[Buffer]) -> bytes:
    """`parts` under the name of what can read them, each copied once; the same arguments give the same bytes."""
    head = msgspec.msgpack.encode((kind, [len(part) for part in parts]))
    content = [len(head).to_bytes(_LENGTH, "little"), head, *parts]
    return b"".join([_MAGIC, _digest(content), *content])


def unseal_parts(kind: str, state: bytes) -> list[memoryview] | None:
    """The parts of a sealed state, as views of it; None when it is of another kind: the detector was exchanged.

    Raises StateError when it is not a sealed state, or not the one that was sealed.
    """
    view = memoryview(state)[len(_MAGIC) :]
    digest, content = view[:_DIGEST], view[_DIGEST:]
    if not state.startswith(_MAGIC) or digest != _digest([content]):
        raise StateError("the stored state of a detector is damaged, or was written by another version")
    begin = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    found, lengths = msgspec.msgpack.decode(content[_LENGTH:begin], type=tuple[str, list[int]])
    ends = list(accumulate(lengths, initial=begin))
    return [content[a:b] for a, b in pairwise(ends)] if found == kind else None


def pickled(model: object) -> bytes:
    """A model as bytes. Raises TypeError when it cannot be stored."""
    try:
        return pickle.dumps(model, protocol=5)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(f"{type(model).__name__} cannot be stored: {error} (a lambda inside?)") from error


def unpickled(data: bytes, packages: Collection[str]) -> Any:
    """The model again, when it is made of classes of these packages; raises whatever its classes raise."""
    return _Reader(data, packages).load()


def _digest(parts: Iterable[Buffer]) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST)
    for part in parts:
        digest.update(part)
    return digest.digest()


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
