"""Models as pickles, read back with no classes but those that the declared model is made of."""

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
        raise TypeError(f"{type(model).__name__} cannot be stored: {error} (a lambda inside?)") from error


def names_in(models: Iterable[object]) -> Names:
    """Return module and name of every class and function that the pickles of these models name.

    The models are our own, so their pickles may be read without a limit.
    """
    found: set[tuple[str, str]] = set()
    for model in models:
        _Recorder(pickled(model), found).load()
    return frozenset(found)


def unpickled(data: bytes, names: Collection[tuple[str, str]]) -> Any:
    """Return the model again; `names` are the only classes and functions that it may name.

    Raises UnpicklingError when it names another one, or is not what `pickled` writes, and whatever its classes raise.
    """
    if not _is_plain(np.frombuffer(data, np.uint8), _ARGUMENTS):
        raise pickle.UnpicklingError("it is damaged, or not a pickle of protocol 5")
    return _Reader(data, names).load()


class _Recorder(pickle.Unpickler):
    def __init__(self, data: bytes, found: set[tuple[str, str]]) -> None:
        super().__init__(io.BytesIO(data))
        self._found = found

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle names, which is noted."""
        self._found.add((module, name))
        return super().find_class(module, name)


class _Reader(pickle.Unpickler):
    """Makes what it was told of; refuses everything else.

    Exact names, and no modules: a name with dots would reach what a module imported.
    """

    def __init__(self, data: bytes, names: Collection[tuple[str, str]]) -> None:
        super().__init__(io.BytesIO(data))
        self._names = names

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle names. Raises UnpicklingError when the declared model does not consist of it."""
        if (module, name) not in self._names:
            raise pickle.UnpicklingError(f"{module}.{name} is not a part of the declared model")
        return super().find_class(module, name)


# Python's pickler of protocol 5 does not write these. They are refused before anything is built: LONG_BINPUT with a
# large number makes the C unpickler ask for gigabytes, and EXT1, PERSID or GLOBAL reach for what no model needs.
_NOT_WRITTEN = {"EXT1", "EXT2", "EXT4", "GLOBAL", "INST", "OBJ", "PERSID", "BINPERSID", "NEXT_BUFFER"}
_NOT_WRITTEN |= {"PUT", "BINPUT", "LONG_BINPUT", "LONG4", "READONLY_BUFFER", "DUP"}
_REFUSED, _PREFIXED = -1, 16
_PREFIXES = {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT4U: 4}
_PREFIXES |= {pickletools.TAKEN_FROM_ARGUMENT8U: 8}


def _arguments() -> NDArray[np.int64]:
    """Of each opcode the bytes that follow it, _PREFIXED + n where a length of n bytes follows, or _REFUSED."""
    found = np.full(256, _REFUSED, dtype=np.int64)
    for opcode in pickletools.opcodes:
        size = opcode.arg.n if opcode.arg is not None else 0
        if opcode.name not in _NOT_WRITTEN and (size >= 0 or size in _PREFIXES):  # lines of text are older
            found[ord(opcode.code)] = size if size >= 0 else _PREFIXED + _PREFIXES[size]
    return found


_ARGUMENTS = _arguments()


@compiled
def _is_plain(data: NDArray[np.uint8], arguments: NDArray[np.int64]) -> bool:
    """Whether bytes are opcodes that are known, each with its whole argument, and the last of them is STOP."""
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
