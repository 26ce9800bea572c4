"""What a snapshot of a shard's state holds, by version: its fields and their types, checked when it is read."""

from __future__ import annotations

from typing import Any, TypedDict

import msgspec

from anomaly.detector import StateError
from stream_app.errors import FatalError
from stream_app.pipeline.state.packing import is_container, read_container
from stream_app.pipeline.state.stored_arrays import require

VERSION = 3
# Version 2 had no checksum, and did not know when records arrived.
_READ = (2, VERSION)
# Types that a device's key may have.
_KEYS = (str, int, float, bool, bytes, type(None))


class StoredSeen(TypedDict):
    """Of each device how many events it had, how many of their ids are stored, and these ids' hashes, joined."""

    counts: memoryview
    lengths: memoryview
    marks: memoryview


class StoredPrevious(TypedDict):
    """The fields that are kept, and each device's values."""

    fields: list[str]
    last: list[list[Any]]


class StoredWindows(TypedDict):
    """Fields, size and step (microseconds) of the window; by device and slot its step, by field its values."""

    grid: tuple[list[str], int, int]
    stamps: memoryview
    values: memoryview


class StoredChecks(TypedDict):
    """Which checks they are; by device and check what is remembered."""

    rates: list[str]
    stucks: list[str]
    at: memoryview
    last: memoryview
    same: memoryview
    run: memoryview


class StoredEvent(msgspec.Struct):
    """One event type: `keys` of its devices in the order of all arrays. `arrived` is -1 where it is not known."""

    keys: list[Any]
    seen: StoredSeen
    previous: StoredPrevious | None = None
    windows: StoredWindows | None = None
    checks: StoredChecks | None = None
    detector: memoryview | None = None
    arrived: memoryview | None = None
    labels: dict[str, str] = {}


class _Version(msgspec.Struct):
    version: int


class StoredState(msgspec.Struct):
    """Everything. `latest` is when the shard's latest record arrived, in milliseconds, 0 where it is not known."""

    events: dict[str, StoredEvent]
    latest: int = 0


def read(snapshot: bytes) -> StoredState:
    """Return the content of a snapshot of this version or of the one before.

    Raises FatalError when it is damaged, no snapshot, or of another version.
    """
    try:
        content = read_container(snapshot)
        version = msgspec.msgpack.decode(content, type=_Version).version
        if version not in _READ:
            raise FatalError(f"a state snapshot of version {version} cannot be read, only of {_READ}")
        require((version == VERSION) == is_container(snapshot), "its version is not that of its container")
        stored = msgspec.msgpack.decode(content, type=StoredState)
        for event in stored.events.values():
            _check_keys(event.keys)
        require(0 <= stored.latest <= 2**62, "its latest arrival is out of range")
    except (ValueError, RecursionError, MemoryError, StateError) as error:
        raise FatalError(f"not a state snapshot: {error}") from error
    return stored


def _check_keys(keys: list[Any]) -> None:
    require(all(isinstance(key, _KEYS) for key in keys), "a device's key is neither text nor a number")
    require(len(set(keys)) == len(keys), "a device is there twice")
