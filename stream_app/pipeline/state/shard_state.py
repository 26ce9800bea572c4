"""The state of one shard: for each event type what is remembered of its devices."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from anomaly.detector import Detector, StateError
from anomaly.keyed_state.container import InPieces, Pieces
from anomaly.keyed_state.indexed_keys import Expecting, Forgetting, Numbered
from stream_app.errors import FatalError
from stream_app.model.event import Event
from stream_app.model.record import IntVector
from stream_app.pipeline.sensor_checks import SensorChecks
from stream_app.pipeline.state.deduplication import RecentIds
from stream_app.pipeline.state.key_index import KeyIndex, KeyLookup
from stream_app.pipeline.state.packing import compress_state
from stream_app.pipeline.state.previous_values import KeyFilter, PreviousValues
from stream_app.pipeline.state.snapshot import VERSION, StoredEvent, read
from stream_app.pipeline.state.stored_arrays import as_bytes, require, stored_rows
from stream_app.pipeline.state.windows import Windows

# Memory of forgotten devices is given back when they are at least so many, and at least half of all.
MIN_FORGOTTEN = 4_096
# Arrivals lie between these, in milliseconds, so that differences cannot overflow.
_FIRST, _LAST = 0, 2**62


class EventState:
    """Ids, previous values, windows, checks and detector of one event type; all but the last by device number.

    A device that is silent for longer than `forget_after` ms (0: never) is forgotten: `Devices` gives its next record
    another number, and the detector takes it for a key that it never saw.
    """

    def __init__(self, event: Event, seen_ids: int, forget_after: int = 0) -> None:
        self._event, self._seen_ids, self._forget_after = event, seen_ids, forget_after
        self._begin()
        self.detector = self._new_detector()
        # What a detector that cannot forget calls a device that began anew, by number.
        self._labels: dict[int, str] = {}
        self._forgotten_before = 0
        self._tidy_from, self._tidy_at = MIN_FORGOTTEN, 0

    def _begin(self) -> None:
        event = self._event
        self.devices = KeyIndex(self._forget_after)
        self.seen = RecentIds(self._seen_ids)
        self.previous = PreviousValues(event.previous) if event.previous else None
        self.windows = Windows(event.window) if event.window else None
        self.checks = SensorChecks(event.checks) if event.checks else None

    def _new_detector(self) -> Detector | None:
        event = self._event
        return event.detector(event.features) if event.detector and event.features else None

    def _parts(self) -> dict[str, RecentIds | PreviousValues | Windows | SensorChecks | None]:
        return {
            "seen": self.seen,
            "previous": self.previous,
            "windows": self.windows,
            "checks": self.checks,
        }

    # ---- Devices that are forgotten

    @property
    def forgotten(self) -> int:
        """How many devices were forgotten since this state was made."""
        return self._forgotten_before + self.devices.forgotten

    def renew(self, keys: list[Any], arrived: KeyLookup, moments: IntVector) -> dict[int, Any]:
        """Note which devices begin anew with rows that arrived; returns their new numbers, and their keys."""
        rows = arrived.renewed.tolist()
        renewed = {int(arrived.numbers[row]): keys[row] for row in rows}
        if self.detector is not None and not isinstance(self.detector, Forgetting):
            for row in rows:
                self._labels[int(arrived.numbers[row])] = f"{keys[row]}\0{int(moments[row])}"
        return renewed

    def numbered(self, keys: list[Any], numbers: IntVector, renewed: dict[int, Any]) -> Numbered:
        """The keys of rows as the detector is given them."""
        if self._labels:
            keys = [self._labels.get(n, key) for n, key in zip(numbers.tolist(), keys, strict=True)]
        return Numbered(keys, numbers, self.devices, renewed)

    def forget_unscored(self, keys: Numbered) -> None:
        """Let the detector forget devices that began anew, of which it got no row."""
        if keys.renewed and self.detector is not None and isinstance(self.detector, Forgetting):
            self.detector.forget_keys(list(keys.renewed.values()))

    def forget_silent(self, moment: int) -> None:
        """Forget the devices that were silent for too long by `moment`. No result depends on when this is called."""
        silent = self.devices.silent(moment).tolist()
        if not silent:
            return
        if self.detector is not None and isinstance(self.detector, Forgetting):
            keys = self.devices.keys
            self.detector.forget_keys([keys[number] for number in silent])
        for number in silent:
            self._labels.pop(number, None)
        self.devices.forget(np.array(silent, dtype=np.int64))

    def tidy(self, moment: int) -> None:
        """Give the memory of forgotten devices back, when they are many. The cost is spread over what came since."""
        if not self._forget_after or (len(self.devices) < self._tidy_from and moment < self._tidy_at):
            return
        self.forget_silent(moment)
        live = self.devices.remembered()
        if len(self.devices) - len(live) >= max(MIN_FORGOTTEN, len(self.devices) / 2):
            self._rebuild(live)
        self._tidy_from = max(MIN_FORGOTTEN, 3 * len(self.devices) // 2)
        self._tidy_at = moment + self._forget_after // 8 + 1

    def _rebuild(self, live: IntVector) -> None:
        """Put what is known of these devices, which have numbers in order, into new arrays."""
        keys, arrived = self.devices.keys, self.devices.arrived[live]
        kept = [keys[number] for number in live.tolist()]
        dumped = {name: part and _joined(part.dump(live)) for name, part in self._parts().items()}
        labels = {to: self._labels[of] for to, of in enumerate(live.tolist()) if of in self._labels}
        if self.detector is not None and not isinstance(self.detector, Forgetting):
            old, self.detector = self.detector.snapshot(), self._new_detector()
            _restore(self.detector, old, self._names(kept, labels))
        self._forgotten_before = self.forgotten
        self._begin()
        self._labels = labels
        to = self.devices.numbers(kept)
        self.devices.set_arrived(to, arrived)
        for name, part in self._parts().items():
            if part is not None:
                part.load(dumped[name], to, to, len(kept))
        self._expect(kept, to)

    @staticmethod
    def _names(keys: list[Any], labels: Mapping[int, str]) -> Collection[Any]:
        """What the detector calls devices, whose labels are given by their places in `keys`."""
        return {labels.get(at, key) for at, key in enumerate(keys)} if labels else set(keys)

    def _expect(self, keys: list[Any], numbers: IntVector) -> None:
        if self.detector is not None and isinstance(self.detector, Expecting):
            self.detector.expect(Numbered(keys, numbers, self.devices))

    # ---- Snapshots

    def dump(self, moment: int = 0) -> dict[str, Any]:
        """What `packing.compressed` takes, of devices not forgotten by `moment`; arrays go by the order of `keys`."""
        self.forget_silent(moment)
        live, keys, arrived = self.devices.remembered(), self.devices.keys, self.devices.arrived
        chosen = len(live) if len(live) == len(keys) else live
        if len(live) < len(keys):
            keys, arrived = [keys[number] for number in live.tolist()], arrived[live]
        dumped = {name: None if part is None else part.dump(chosen) for name, part in self._parts().items()}
        labels = {str(at): self._labels[of] for at, of in enumerate(live.tolist()) if of in self._labels}
        known = {"keys": keys, "arrived": as_bytes(arrived), "labels": labels}
        return {**known, **dumped, "detector": _dumped(self.detector)}

    def load(self, dumped: StoredEvent, keep: KeyFilter) -> None:
        """Add the devices for which `keep` holds; parts that the event no longer declares are passed over.

        Raises StateError when what was stored contradicts itself.
        """
        keys = dumped.keys
        of = np.array([number for number, key in enumerate(keys) if keep(key)], dtype=np.int64)
        kept = [keys[number] for number in of.tolist()]
        to = self.devices.numbers(kept)
        if dumped.arrived is not None:
            arrived = stored_rows(dumped.arrived, np.int64, (), of, len(keys))
            require(-1 <= int(arrived.min(initial=0)) <= int(arrived.max(initial=0)) <= _LAST, "bad arrivals")
            self.devices.set_arrived(to, arrived[of])
        for name, part in self._parts().items():
            stored = getattr(dumped, name)
            if part is not None and stored is not None:
                part.load(stored, of, to, len(keys))
        labels = {at: dumped.labels[str(of)] for at, of in enumerate(of.tolist()) if str(of) in dumped.labels}
        self._labels |= {int(to[at]): label for at, label in labels.items()}
        if self.detector is not None and dumped.detector is not None:
            _restore(self.detector, dumped.detector, self._names(kept, labels))
            self._expect(kept, to)


def _restore(detector: Detector | None, stored: Any, names: Collection[Any]) -> None:
    if detector is None:
        return
    try:
        detector.restore(stored if isinstance(detector, InPieces) else bytes(stored), names.__contains__)
    except StateError:
        raise
    except Exception as error:  # whatever a user's detector makes of bytes that it did not write
        raise StateError(f"{type(error).__name__}: {error}") from error


def _dumped(detector: Detector | None) -> Pieces | bytes | None:
    if detector is None:
        return None
    return detector.pieces() if isinstance(detector, InPieces) else detector.snapshot()


def _joined(dumped: Mapping[str, Any]) -> dict[str, Any]:
    return {name: item.joined() if isinstance(item, Pieces) else item for name, item in dumped.items()}


class ShardState:
    """All of it, by event name. `snapshot` and `restore` are exact: scores go on as if nothing had happened."""

    def __init__(self, events: Mapping[str, Event], seen_ids: int, forget_after: int = 0) -> None:
        self._given, self._forget_after = (events, seen_ids, forget_after), forget_after
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        events, seen_ids, forget_after = self._given
        self._events = {name: EventState(event, seen_ids, forget_after) for name, event in events.items()}
        self._latest = _FIRST

    def __getitem__(self, event: str) -> EventState:
        return self._events[event]

    @property
    def devices(self) -> int:
        """How many devices are held in memory, those included that are forgotten and not removed yet."""
        return sum(len(state.devices) for state in self._events.values())

    @property
    def forgotten(self) -> int:
        """How many devices were forgotten since this state was made."""
        return sum(state.forgotten for state in self._events.values())

    def moments(self, arrived: IntVector) -> IntVector:
        """When records count as arrived, (n,) in ms: the latest arrival of all records of the shard up to each."""
        moments: IntVector = np.maximum.accumulate(np.clip(arrived, self._latest, _LAST))
        if len(moments):
            self._latest = int(moments[-1])
            for state in self._events.values():
                state.devices.note_unknown(int(moments[0]))
        return moments

    def spans(self, moments: IntVector) -> list[tuple[int, int]]:
        """Cut records into runs during none of which a device can be forgotten and come back."""
        if not self._forget_after or not len(moments) or moments[-1] - moments[0] <= self._forget_after:
            return [(0, len(moments))]
        stops = [0]
        while stops[-1] < len(moments):
            latest = moments[stops[-1]] + self._forget_after
            stops.append(int(np.searchsorted(moments, latest, side="right")))
        return list(pairwise(stops))

    def tidy(self) -> None:
        """Give the memory of forgotten devices back, when they are many."""
        for state in self._events.values():
            state.tidy(self._latest)

    def snapshot(self) -> bytes:
        """The whole state as bytes, compressed, with a checksum."""
        events = {name: state.dump(self._latest) for name, state in self._events.items()}
        return compress_state({"version": VERSION, "latest": self._latest, "events": events})

    def restore(self, snapshot: bytes, keep: KeyFilter = lambda _key: True) -> None:
        """Add what a snapshot holds of devices for which `keep` holds.

        Raises FatalError when it is damaged, contradicts itself, is none, or of an unknown version. Some of it may
        have been added then.
        """
        stored = read(snapshot)
        self._latest = max(self._latest, stored.latest)
        for name, dumped in stored.events.items():
            if name in self._events:
                try:
                    self._events[name].load(dumped, keep)
                except StateError as error:
                    raise FatalError(
                        f"not a state snapshot that can be used: event {name!r}: {error}"
                    ) from error
