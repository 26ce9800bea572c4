"""Models as pickles, read back with an allowlist of the classes of the declared model."""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.kernels.compiled import compiled

Names = frozenset[tuple[str, str]]


def pickled(model: object) -> bytes:
    """Return a model as bytes. Raises TypeError when it cannot be stored."""
    try:
        return pickle.dumps(model, protocol=5)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(
            f"cannot store {type(model).__name__}: {error} (does it contain a lambda?)"
        ) from error


def names_in(models: Iterable[object]) -> Names:
    """Return module and name of every class and function in the pickles of these models.

    The models are created in this process, so their pickles can be read without restrictions.
    """
    found: set[tuple[str, str]] = set()
    for model in models:
        _Recorder(pickled(model), found).load()
    return frozenset(found)


def unpickled(data: bytes, names: Collection[tuple[str, str]]) -> Any:
    """Load a model; `names` are the classes and functions that the pickle may refer to.

    Raises UnpicklingError if it refers to another one or was not written by `pickled`, and what its classes raise.
    """
    if not _is_plain(np.frombuffer(data, np.uint8), _ARGUMENTS):
        raise pickle.UnpicklingError("damaged, or not a pickle of protocol 5")
    return _Reader(data, names).load()


class _Recorder(pickle.Unpickler):
    def __init__(self, data: bytes, found: set[tuple[str, str]]) -> None:
        super().__init__(io.BytesIO(data))
        self._found = found

    def find_class(self, module: str, name: str) -> object:
        """Record and return what the pickle refers to."""
        self._found.add((module, name))
        return super().find_class(module, name)


class _Reader(pickle.Unpickler):
    """An unpickler with an allowlist of exact names: a dotted name could reach what a module imported."""

    def __init__(self, data: bytes, names: Collection[tuple[str, str]]) -> None:
        super().__init__(io.BytesIO(data))
        self._names = names

    def find_class(self, module: str, name: str) -> object:
        """Return what the pickle refers to. Raises UnpicklingError if it is not part of the declared model."""
        if (module, name) not in self._names:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of the declared model")
        return super().find_class(module, name)


# Opcodes that Python's pickler of protocol 5 does not write. They are rejected before anything is built: LONG_BINPUT
# with a large number makes the C unpickler allocate gigabytes, and models need no EXT1, PERSID or GLOBAL.
_NOT_WRITTEN = {"EXT1", "EXT2", "EXT4", "GLOBAL", "INST", "OBJ", "PERSID", "BINPERSID", "NEXT_BUFFER"}
_NOT_WRITTEN |= {"PUT", "BINPUT", "LONG_BINPUT", "LONG4", "READONLY_BUFFER", "DUP"}
_REFUSED, _PREFIXED = -1, 16
_PREFIXES = {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT4U: 4}
_PREFIXES |= {pickletools.TAKEN_FROM_ARGUMENT8U: 8}


def _arguments() -> NDArray[np.int64]:
    """Return for each opcode the size of its argument, _PREFIXED + n if a length of n bytes precedes, or _REFUSED."""
    found = np.full(256, _REFUSED, dtype=np.int64)
    for opcode in pickletools.opcodes:
        size = opcode.arg.n if opcode.arg is not None else 0
        if opcode.name not in _NOT_WRITTEN and (
            size >= 0 or size in _PREFIXES
        ):  # older opcodes take a line of text
            found[ord(opcode.code)] = size if size >= 0 else _PREFIXED + _PREFIXES[size]
    return found


_ARGUMENTS = _arguments()


@compiled
def _is_plain(data: NDArray[np.uint8], arguments: NDArray[np.int64]) -> bool:
    """Return whether the bytes are complete known opcodes that end with STOP."""
    at, size = 0, len(data)
    while at < size:
        opcode, follows = data[at], arguments[data[at]]
        at += 1
        if follows == _REFUSED:
            return False
        if follows >= _PREFIXED:
            wide, length = follows - _PREFIXED, 0
            if at + wide > size:
                return False
            for i in range(wide - 1, -1, -1):
                if length > size:
                    return False
                length = length * 256 + data[at + i]
            follows = wide + length
        if follows > size - at:
            return False
        at += follows
        if opcode == 0x2E:  # STOP
            return bool(at == size)
    return False
