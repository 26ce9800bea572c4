"""The content of a snapshot of a shard's state: fields and types by version, checked when it is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

import msgspec

from anomaly.detector import StateError
from stream_app.errors import FatalError
from stream_app.pipeline.state.key_index import Key
from stream_app.pipeline.state.packing import is_container, read_container
from stream_app.pipeline.state.previous_values import Value
from stream_app.pipeline.state.stored_arrays import require

KeyFilter = Callable[[str], bool]
"""Whether the device with a key is restored."""

VERSION = 3
# Version 2 has no checksum and no arrival times.
_READ = (2, VERSION)
# The types of a device's key.
_KEYS = (str, int, float, bool, bytes, type(None))


class StoredSeen(TypedDict):
    """By device: the number of its events and of its stored ids; then the ids' hashes, joined."""

    counts: memoryview
    lengths: memoryview
    marks: memoryview


class StoredPrevious(TypedDict):
    """The names of the fields, and their values by device."""

    fields: list[str]
    last: list[list[Value]]


class StoredWindows(TypedDict):
    """The window's fields, size and step (microseconds); the step and the values of each cell by device."""

    grid: tuple[list[str], int, int]
    stamps: memoryview
    values: memoryview


class StoredChecks(TypedDict):
    """The identities of the checks; their state by device and check."""

    rates: list[str]
    stucks: list[str]
    at: memoryview
    last: memoryview
    same: memoryview
    run: memoryview


class StoredEvent(msgspec.Struct):
    """One event type. All arrays are in the order of `keys`; `arrived` is -1 if unknown."""

    keys: list[Key]
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
    """A whole snapshot. `latest` is the latest arrival of a record of the shard in milliseconds, 0 if unknown."""

    events: dict[str, StoredEvent]
    latest: int = 0


def read(snapshot: bytes) -> StoredState:
    """Decode and check a snapshot of the current or the previous version.

    Raises FatalError if it is damaged, not a snapshot, or of another version.
    """
    try:
        content = read_container(snapshot)
        version = msgspec.msgpack.decode(content, type=_Version).version
        if version not in _READ:
            raise FatalError(f"unsupported state snapshot version {version} (expected one of {_READ})")
        require((version == VERSION) == is_container(snapshot), "its version contradicts its container")
        stored = msgspec.msgpack.decode(content, type=StoredState)
        for event in stored.events.values():
            _check_keys(event.keys)
        require(0 <= stored.latest <= 2**62, "its latest arrival is out of range")
    except (ValueError, RecursionError, MemoryError, StateError) as error:
        raise FatalError(f"not a state snapshot: {error}") from error
    return stored


def _check_keys(keys: list[Key]) -> None:
    require(all(isinstance(key, _KEYS) for key in keys), "a device's key is neither text nor a number")
    require(len(set(keys)) == len(keys), "a device occurs twice")
