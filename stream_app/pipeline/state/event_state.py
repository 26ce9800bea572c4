"""The state of one event type: what the pipeline stores about its devices."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol

import numpy as np

from anomaly.detector import Detector, StateError
from anomaly.keyed_state.container import InPieces, Pieces
from anomaly.keyed_state.indexed_keys import Expecting, Forgetting, Numbered
from stream_app.model.event import Event
from stream_app.model.record import Batch, IntVector
from stream_app.pipeline.sensor_checks import SensorChecks
from stream_app.pipeline.state.deduplication import RecentIds
from stream_app.pipeline.state.key_index import Key, KeyIndex
from stream_app.pipeline.state.previous_values import PreviousValues
from stream_app.pipeline.state.snapshot import KeyFilter, StoredEvent
from stream_app.pipeline.state.stored_arrays import (
    SlotSelection,
    StoredPart,
    as_bytes,
    require,
    stored_rows,
)
from stream_app.pipeline.state.windows import Windows

# The memory of forgotten devices is reclaimed when they are at least this many, and at least half of all.
MIN_FORGOTTEN = 4_096
# The latest valid arrival in milliseconds, low enough that differences cannot overflow.
MAX_ARRIVAL = 2**62


class _Part(Protocol):
    """State by device slot."""

    def dump(self, selection: SlotSelection) -> Mapping[str, object]: ...

    def load(self, dumped: StoredPart, of: IntVector, to: IntVector, devices: int | None = None) -> None: ...


class DeviceRows(NamedTuple):
    """The devices of rows: their keys, their slots, and the keys of new slots that forgotten devices got."""

    keys: list[Key]
    slots: IntVector
    renewed: dict[int, Key]

    def at_rows(self, rows: IntVector, selected: IntVector) -> DeviceRows:
        """Return the devices of the `selected` source rows; `rows` are the source rows of `self`."""
        if len(selected) == len(rows):
            return self
        at = np.searchsorted(rows, selected)
        return DeviceRows([self.keys[row] for row in at.tolist()], self.slots[at], self.renewed)


class EventState:
    """The recent ids, previous values, windows, checks and detector of one event type.

    All but the detector store their state by device slot. A device that sent nothing for longer than `forget_after`
    milliseconds (0: never) is forgotten: `KeyIndex` gives its next record a new slot, and the detector treats it as a
    new key.
    """

    def __init__(self, event: Event, max_ids: int, forget_after: int = 0) -> None:
        self._event, self._max_ids, self._forget_after = event, max_ids, forget_after
        self._create_parts()
        self.detector = self._new_detector()
        # By slot: the name of a device that was forgotten and returned, for a detector that cannot forget keys.
        self._labels: dict[int, str] = {}
        self._forgotten_before = 0
        self._reclaim_from_slots, self._reclaim_from_arrival = MIN_FORGOTTEN, 0

    def _create_parts(self) -> None:
        event = self._event
        self.devices = KeyIndex(self._forget_after)
        self.recent_ids = RecentIds(self._max_ids)
        self.previous = PreviousValues(event.previous) if event.previous else None
        self.windows = Windows(event.window) if event.window else None
        self.checks = SensorChecks(event.checks) if event.checks else None

    def _new_detector(self) -> Detector | None:
        event = self._event
        return event.detector(event.features) if event.detector and event.features else None

    def _parts(self) -> dict[str, _Part | None]:
        """Return the parts by their names in a snapshot."""
        return {
            "seen": self.recent_ids,
            "previous": self.previous,
            "windows": self.windows,
            "checks": self.checks,
        }

    def look_up_devices(self, batch: Batch, arrivals: IntVector) -> DeviceRows:
        """Look up the devices of arriving rows; `arrivals` are those of all records of the call."""
        keys: list[Key] = batch[self._event.key].tolist()
        own = arrivals[batch.rows]
        found = self.devices.look_up(keys, own)
        rows = found.renewed.tolist()
        renewed = {int(found.slots[row]): keys[row] for row in rows}
        if self.detector is not None and not isinstance(self.detector, Forgetting):
            for row in rows:
                self._labels[int(found.slots[row])] = f"{keys[row]}\0{int(own[row])}"
        return DeviceRows(keys, found.slots, renewed)

    # ---- Forgotten devices

    @property
    def forgotten(self) -> int:
        """The number of devices forgotten since this object was created."""
        return self._forgotten_before + self.devices.forgotten

    def detector_keys(self, devices: DeviceRows) -> Numbered:
        """Return the keys of rows as the detector expects them."""
        keys = devices.keys
        if self._labels:
            keys = [self._labels.get(n, key) for n, key in zip(devices.slots.tolist(), keys, strict=True)]
        return Numbered(keys, devices.slots, self.devices, devices.renewed)

    def forget_unscored(self, keys: Numbered) -> None:
        """Let the detector forget the devices that returned but of which it received no row."""
        if keys.renewed and self.detector is not None and isinstance(self.detector, Forgetting):
            self.detector.forget_keys(list(keys.renewed.values()))

    def forget_expired(self, now: int) -> None:
        """Forget the devices that have expired by `now` (milliseconds). No result depends on when this is called."""
        expired = self.devices.expired_slots(now).tolist()
        if not expired:
            return
        if self.detector is not None and isinstance(self.detector, Forgetting):
            keys = self.devices.keys
            self.detector.forget_keys([keys[slot] for slot in expired])
        for slot in expired:
            self._labels.pop(slot, None)
        self.devices.forget(np.array(expired, dtype=np.int64))

    def reclaim_memory(self, now: int) -> None:
        """Reclaim the memory of forgotten devices if they are many; the cost is amortized over new devices."""
        if not self._forget_after or (
            len(self.devices) < self._reclaim_from_slots and now < self._reclaim_from_arrival
        ):
            return
        self.forget_expired(now)
        live = self.devices.live_slots()
        if len(self.devices) - len(live) >= max(MIN_FORGOTTEN, len(self.devices) / 2):
            self._rebuild(live)
        self._reclaim_from_slots = max(MIN_FORGOTTEN, 3 * len(self.devices) // 2)
        self._reclaim_from_arrival = now + self._forget_after // 8 + 1

    def _rebuild(self, live: IntVector) -> None:
        """Copy the state of the `live` slots, in ascending order, to new arrays."""
        keys, arrivals = self.devices.keys, self.devices.last_arrivals[live]
        kept = [keys[slot] for slot in live.tolist()]
        dumped = {name: part and _joined(part.dump(live)) for name, part in self._parts().items()}
        labels = {to: self._labels[of] for to, of in enumerate(live.tolist()) if of in self._labels}
        if self.detector is not None and not isinstance(self.detector, Forgetting):
            old, self.detector = self.detector.snapshot(), self._new_detector()
            _restore(self.detector, old, self._detector_names(kept, labels))
        self._forgotten_before = self.forgotten
        self._create_parts()
        self._labels = labels
        to = self.devices.slots(kept)
        self.devices.set_last_arrivals(to, arrivals)
        for name, part in self._parts().items():
            if part is not None:
                part.load(dumped[name], to, to, len(kept))
        self._expect(kept, to)

    @staticmethod
    def _detector_names(keys: list[Key], labels: Mapping[int, str]) -> Collection[Key]:
        """Return the detector's names of devices; `labels` are by index in `keys`."""
        return {labels.get(at, key) for at, key in enumerate(keys)} if labels else set(keys)

    def _expect(self, keys: list[Key], slots: IntVector) -> None:
        if self.detector is not None and isinstance(self.detector, Expecting):
            self.detector.expect(Numbered(keys, slots, self.devices))

    # ---- Snapshots

    def dump(self, now: int = 0) -> dict[str, object]:
        """Return the state of the devices not expired by `now`, for `compress_state`; arrays follow `keys`."""
        self.forget_expired(now)
        live, keys, arrivals = self.devices.live_slots(), self.devices.keys, self.devices.last_arrivals
        selection = len(live) if len(live) == len(keys) else live
        if len(live) < len(keys):
            keys, arrivals = [keys[slot] for slot in live.tolist()], arrivals[live]
        dumped = {
            name: None if part is None else part.dump(selection) for name, part in self._parts().items()
        }
        labels = {str(at): self._labels[of] for at, of in enumerate(live.tolist()) if of in self._labels}
        known = {"keys": keys, "arrived": as_bytes(arrivals), "labels": labels}
        return {**known, **dumped, "detector": _dumped(self.detector)}

    def load(self, dumped: StoredEvent, keep: KeyFilter) -> None:
        """Add the devices for which `keep` holds; parts that the event no longer declares are ignored.

        Raises StateError if the stored state is inconsistent.
        """
        keys = dumped.keys
        of = np.array([slot for slot, key in enumerate(keys) if keep(key)], dtype=np.int64)
        kept = [keys[slot] for slot in of.tolist()]
        to = self.devices.slots(kept)
        if dumped.arrived is not None:
            arrivals = stored_rows(dumped.arrived, np.int64, (), of, len(keys))
            lowest, highest = int(arrivals.min(initial=0)), int(arrivals.max(initial=0))
            require(-1 <= lowest <= highest <= MAX_ARRIVAL, "an arrival is out of range")
            self.devices.set_last_arrivals(to, arrivals[of])
        for name, part in self._parts().items():
            stored = getattr(dumped, name)
            if part is not None and stored is not None:
                part.load(stored, of, to, len(keys))
        labels = {at: dumped.labels[str(of)] for at, of in enumerate(of.tolist()) if str(of) in dumped.labels}
        self._labels |= {int(to[at]): label for at, label in labels.items()}
        if self.detector is not None and dumped.detector is not None:
            _restore(self.detector, dumped.detector, self._detector_names(kept, labels))
            self._expect(kept, to)


def _restore(detector: Detector | None, stored: StoredPart, names: Collection[Key]) -> None:
    if detector is None:
        return
    try:
        detector.restore(stored if isinstance(detector, InPieces) else bytes(stored), names.__contains__)
    except StateError:
        raise
    except Exception as error:  # a user's detector may raise anything on a snapshot that it did not write
        raise StateError(f"{type(error).__name__}: {error}") from error


def _dumped(detector: Detector | None) -> Pieces | bytes | None:
    if detector is None:
        return None
    return detector.pieces() if isinstance(detector, InPieces) else detector.snapshot()


def _joined(dumped: Mapping[str, object]) -> dict[str, object]:
    return {name: item.joined() if isinstance(item, Pieces) else item for name, item in dumped.items()}
