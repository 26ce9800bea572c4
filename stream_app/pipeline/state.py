"""The state of one shard: for each event type what is remembered of its devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stream_app.errors import FatalError
from stream_app.event import Event
from stream_app.pipeline.memory import Keep, Previous, Seen, pack, unpack
from stream_app.pipeline.windows import Windows

VERSION = 1


class EventState:
    """Ids, previous values, windows and detector of one event type."""

    def __init__(self, event: Event, seen_ids: int) -> None:
        self.seen = Seen(seen_ids)
        self.previous = Previous(event.previous) if event.previous else None
        self.windows = Windows(event.window) if event.window else None
        self.detector = event.detector(event.features) if event.detector and event.features else None

    def dump(self) -> dict[str, Any]:
        """Built-in types only."""
        return {
            "seen": self.seen.dump(),
            "previous": self.previous.dump() if self.previous else None,
            "windows": self.windows.dump() if self.windows else None,
            "detector": self.detector.snapshot() if self.detector else None,
        }

    def load(self, dumped: Mapping[str, Any], keep: Keep) -> None:
        """Add the devices for which `keep` holds; parts that the event no longer declares are passed over."""
        self.seen.load(dumped["seen"], keep)
        if self.previous and dumped["previous"]:
            self.previous.load(dumped["previous"], keep)
        if self.windows and dumped["windows"]:
            self.windows.load(dumped["windows"], keep)
        if self.detector and dumped["detector"]:
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
        """Add what a snapshot holds of devices for which `keep` holds. Raises FatalError on another version."""
        stored = unpack(snapshot)
        if not isinstance(stored, dict) or stored.get("version") != VERSION:
            raise FatalError(f"a state snapshot of another version than {VERSION} cannot be read")
        for name, dumped in stored["events"].items():
            if name in self._events:
                self._events[name].load(dumped, keep)
