"""The state of one shard: for each event type what is remembered of its devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from anomaly.detector import StateError
from stream_app.errors import FatalError
from stream_app.event import Event
from stream_app.pipeline.memory import Keep, Previous, Seen, pack, unpack
from stream_app.pipeline.rules import Checks
from stream_app.pipeline.windows import Windows

VERSION = 1


class EventState:
    """Ids, previous values, windows, checks and detector of one event type."""

    def __init__(self, event: Event, seen_ids: int) -> None:
        self.seen = Seen(seen_ids)
        self.previous = Previous(event.previous) if event.previous else None
        self.windows = Windows(event.window) if event.window else None
        self.checks = Checks(event.checks) if event.checks else None
        self.detector = event.detector(event.features) if event.detector and event.features else None

    def dump(self) -> dict[str, Any]:
        """Built-in types only."""
        dumped = {
            "seen": self.seen.dump(),
            "previous": None if self.previous is None else self.previous.dump(),
            "windows": None if self.windows is None else self.windows.dump(),
            "detector": None if self.detector is None else self.detector.snapshot(),
        }
        # Absent, not None: snapshots of events without checks are what they were before there were any.
        return dumped if self.checks is None else {**dumped, "checks": self.checks.dump()}

    def load(self, dumped: Mapping[str, Any], keep: Keep) -> None:
        """Add the devices for which `keep` holds; parts that the event no longer declares are passed over."""
        self.seen.load(dumped["seen"], keep)
        if self.previous is not None and dumped["previous"] is not None:
            self.previous.load(dumped["previous"], keep)
        if self.windows is not None and dumped["windows"] is not None:
            self.windows.load(dumped["windows"], keep)
        if self.checks is not None and dumped.get("checks") is not None:
            self.checks.load(dumped["checks"], keep)
        if self.detector is not None and dumped["detector"] is not None:
            self.detector.restore(dumped["detector"], keep)


class ShardState:
    """All of it, by event name. `snapshot` and `restore` are exact: scores go on as if nothing had happened."""

    def __init__(self, events: Mapping[str, Event], seen_ids: int) -> None:
        self._events = {name: EventState(event, seen_ids) for name, event in events.items()}

    def __getitem__(self, event: str) -> EventState:
        return self._events[event]

    def snapshot(self) -> bytes:
        """The whole state as bytes."""
        events = {name: state.dump() for name, state in self._events.items()}
        return pack({"version": VERSION, "events": events})

    def restore(self, snapshot: bytes, keep: Keep = lambda _key: True) -> None:
        """Add what a snapshot holds of devices for which `keep` holds.

        Raises FatalError when it is none, or of another version.
        """
        try:
            stored = unpack(snapshot)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise FatalError(f"not a state snapshot: {error}") from error
        if not isinstance(stored, dict) or stored.get("version") != VERSION:
            raise FatalError(f"a state snapshot of another version than {VERSION} cannot be read")
        for name, dumped in stored["events"].items():
            if name in self._events:
                try:
                    self._events[name].load(dumped, keep)
                except StateError as error:
                    raise FatalError(f"the detector's state of event {name!r}: {error}") from error
