"""What a shard remembers of each device: ids seen, last values. Pure values that can be snapshotted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_app.record import Batch, IntVector, Mask

Keep = Callable[[str], bool]
_STALE = np.iinfo(np.int64).min


class Seen:
    """Ids of accepted events among the last `limit` events of each device.

    The limit counts all of a device's events, whatever became of them: what is known to a row then does not
    depend on how the rows before it were split into calls.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count: dict[str, int] = {}
        self._ids: dict[str, dict[Any, int]] = {}

    def meet(self, keys: NDArray[Any], ids: NDArray[Any]) -> tuple[Mask, IntVector]:
        """Count rows in order: true where the id was accepted before from the same device, and each row's number.

        No device may have an id twice among these rows. An event without an id (None) is never a repeat.
        """
        count, seen, limit, nothing = self._count, self._ids, self._limit, dict[Any, int]()
        numbers, hits = [], []
        for key, event_id in zip(keys.tolist(), _portable(ids), strict=True):
            number = count[key] = count.get(key, 0) + 1
            known = seen.get(key, nothing)
            numbers.append(number)
            hits.append(event_id in known and number - known[event_id] <= limit)
        return np.array(hits, dtype=np.bool_), np.array(numbers, dtype=np.int64)

    def remember(self, keys: NDArray[Any], ids: NDArray[Any], numbers: IntVector) -> None:
        """Note ids of accepted events, in order."""
        for key, event_id, number in zip(keys.tolist(), _portable(ids), numbers.tolist(), strict=True):
            if event_id is None:
                continue
            known = self._ids.setdefault(key, {})
            known.pop(event_id, None)  # so that the oldest stay in front
            known[event_id] = number
            while known[oldest := next(iter(known))] <= number - self._limit:
                del known[oldest]

    def dump(self) -> Any:
        """Built-in types only."""
        return {key: (count, list(self._ids.get(key, {}).items())) for key, count in self._count.items()}

    def load(self, dumped: Any, keep: Keep) -> None:
        """Add the devices for which `keep` holds."""
        for key, (count, ids) in dumped.items():
            if keep(key):
                self._count[key] = count
                self._ids[key] = dict(ids)


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
        return {"fields": self._fields, "last": {key: list(values) for key, values in self._last.items()}}

    def load(self, dumped: Any, keep: Keep) -> None:
        """Add the devices for which `keep` holds; a field that was not kept then has no previous value."""
        at = {name: number for number, name in enumerate(dumped["fields"])}
        for key, values in dumped["last"].items():
            if keep(key):
                self._last[key] = tuple(values[at[n]] if n in at else None for n in self._fields)


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
