"""The state of one shard: for each event type what is remembered of its devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from anomaly.container import InPieces, Pieces
from anomaly.detector import Detector, StateError
from anomaly.numbered import Expecting, Numbered
from stream_app.errors import FatalError
from stream_app.event import Event
from stream_app.pipeline.devices import Devices
from stream_app.pipeline.memory import Keep, Previous
from stream_app.pipeline.packing import compressed, opened
from stream_app.pipeline.rules import Checks
from stream_app.pipeline.seen import Seen
from stream_app.pipeline.windows import Windows

VERSION = 2
# What is read shows where it lies in the snapshot, so that it is not there twice.
_Part = None | int | float | list[Any] | memoryview


class _Versioned(msgspec.Struct):
    version: int


class _Stored(msgspec.Struct):
    """A snapshot: by event `keys` and `detector`, and what each part of the state dumped."""

    events: dict[str, dict[str, _Part | dict[str, _Part]]]


class EventState:
    """Ids, previous values, windows, checks and detector of one event type; all but the last by device number."""

    def __init__(self, event: Event, seen_ids: int) -> None:
        self.devices = Devices()
        self.seen = Seen(seen_ids)
        self.previous = Previous(event.previous) if event.previous else None
        self.windows = Windows(event.window) if event.window else None
        self.checks = Checks(event.checks) if event.checks else None
        self.detector = event.detector(event.features) if event.detector and event.features else None

    def _parts(self) -> dict[str, Seen | Previous | Windows | Checks | None]:
        return {
            "seen": self.seen,
            "previous": self.previous,
            "windows": self.windows,
            "checks": self.checks,
        }

    def dump(self) -> dict[str, Any]:
        """What `packing.compressed` takes; arrays go by the order of `keys`."""
        dumped = {
            name: None if part is None else part.dump(len(self.devices))
            for name, part in self._parts().items()
        }
        return {"keys": self.devices.keys, **dumped, "detector": _dumped(self.detector)}

    def load(self, dumped: Mapping[str, Any], keep: Keep) -> None:
        """Add the devices for which `keep` holds; parts that the event no longer declares are passed over."""
        keys = dumped["keys"]
        of = np.array([number for number, key in enumerate(keys) if keep(key)], dtype=np.int64)
        kept = [keys[number] for number in of.tolist()]
        to = self.devices.numbers(kept)
        for name, part in self._parts().items():
            if part is not None and dumped[name] is not None:
                part.load(dumped[name], of, to)
        if self.detector is not None and dumped["detector"] is not None:
            _restore(self.detector, dumped["detector"], keep)
            if isinstance(self.detector, Expecting):
                self.detector.expect(Numbered(kept, to, self.devices))


def _restore(detector: Detector, stored: Any, keep: Keep) -> None:
    detector.restore(stored if isinstance(detector, InPieces) else bytes(stored), keep)


def _dumped(detector: Detector | None) -> Pieces | bytes | None:
    if detector is None:
        return None
    return detector.pieces() if isinstance(detector, InPieces) else detector.snapshot()


class ShardState:
    """All of it, by event name. `snapshot` and `restore` are exact: scores go on as if nothing had happened."""

    def __init__(self, events: Mapping[str, Event], seen_ids: int) -> None:
        self._events = {name: EventState(event, seen_ids) for name, event in events.items()}

    def __getitem__(self, event: str) -> EventState:
        return self._events[event]

    def snapshot(self) -> bytes:
        """The whole state as bytes, compressed."""
        events = {name: state.dump() for name, state in self._events.items()}
        return compressed({"version": VERSION, "events": events})

    def restore(self, snapshot: bytes, keep: Keep = lambda _key: True) -> None:
        """Add what a snapshot holds of devices for which `keep` holds.

        Raises FatalError when it is none, or of another version.
        """
        try:
            content = opened(snapshot)
            version = msgspec.msgpack.decode(content, type=_Versioned).version
            if version != VERSION:
                raise FatalError(f"a state snapshot of version {version}, not {VERSION}, cannot be read")
            stored = msgspec.msgpack.decode(content, type=_Stored)
        except ValueError as error:
            raise FatalError(f"not a state snapshot: {error}") from error
        for name, dumped in stored.events.items():
            if name in self._events:
                try:
                    self._events[name].load(dumped, keep)
                except StateError as error:
                    raise FatalError(f"the detector's state of event {name!r}: {error}") from error
