"""What a shard remembers of each device: ids seen, last values. Pure values that can be snapshotted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_app.record import Batch, Mask

Keep = Callable[[str], bool]
_STALE = np.iinfo(np.int64).min


class Seen:
    """The last `limit` ids of accepted events of each device, oldest forgotten first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ids: dict[str, dict[str, None]] = {}

    def mask(self, keys: NDArray[Any], ids: NDArray[Any]) -> Mask:
        """True where the id was accepted before from the same device."""
        seen = self._ids
        # An event without an id (None) is never a repeat.
        hits = (i is not None and i in seen.get(k, ()) for k, i in zip(keys, ids, strict=True))
        return np.fromiter(hits, dtype=np.bool_, count=len(keys))

    def remember(self, keys: NDArray[Any], ids: NDArray[Any]) -> None:
        """Note ids of accepted events, in order."""
        for key, event_id in zip(keys, ids, strict=True):
            if event_id is None:
                continue
            known = self._ids.setdefault(key, {})
            known[event_id] = None
            if len(known) > self._limit:
                del known[next(iter(known))]

    def dump(self) -> Any:
        """Built-in types only."""
        return {key: list(ids) for key, ids in self._ids.items()}

    def load(self, dumped: Any, keep: Keep) -> None:
        """Add the devices for which `keep` holds."""
        self._ids.update({key: dict.fromkeys(ids) for key, ids in dumped.items() if keep(key)})


class Previous:
    """The last accepted values of each device, as columns `previous.<field>` (None where there is none)."""

    def __init__(self, fields: Sequence[str]) -> None:
        self._fields = tuple(fields)
        self._last: dict[str, tuple[Any, ...]] = {}

    def recall(self, keys: NDArray[Any], batch: Batch) -> dict[str, NDArray[Any]]:
        """The columns for rows of distinct devices."""
        nothing = (None,) * len(self._fields)
        rows = [self._last.get(key, nothing) for key in keys]
        return {
            f"previous.{name}": _like(batch[name], [row[at] for row in rows])
            for at, name in enumerate(self._fields)
        }

    def remember(self, keys: NDArray[Any], batch: Batch) -> None:
        """Take over the values of accepted rows."""
        columns = [_portable(batch[name]) for name in self._fields]
        for at, key in enumerate(keys):
            self._last[key] = tuple(column[at] for column in columns)

    def dump(self) -> Any:
        """Built-in types only."""
        return {key: list(values) for key, values in self._last.items()}

    def load(self, dumped: Any, keep: Keep) -> None:
        """Add the devices for which `keep` holds."""
        self._last.update({key: tuple(values) for key, values in dumped.items() if keep(key)})


def _portable(column: NDArray[Any]) -> list[Any]:
    """Values that survive a snapshot: times as whole ticks (NaT as None), the rest as Python's own."""
    if column.dtype.kind == "M":
        return [None if np.isnat(t) else int(t.view(np.int64)) for t in column]
    values: list[Any] = column.tolist()
    return values


def _like(column: NDArray[Any], values: list[Any]) -> NDArray[Any]:
    """Past values as a column of the kind of today's; where there is none: NaT, NaN or None."""
    if column.dtype.kind == "M":
        ticks = [_STALE if v is None else v for v in values]
        return np.array(ticks, dtype=np.int64).view(column.dtype)
    if column.dtype.kind == "f":
        return np.array(values, dtype=np.float64)
    return np.fromiter(values, dtype=object, count=len(values))


def pack(state: Any) -> bytes:
    """Built-in types to bytes."""
    return msgspec.msgpack.encode(state)


def unpack(data: bytes) -> Any:
    """Bytes of `pack` to built-in types."""
    return msgspec.msgpack.decode(data)
