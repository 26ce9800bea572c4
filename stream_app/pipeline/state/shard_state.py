"""The state of one shard: the states of its event types, with snapshot and restore."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from anomaly.detector import StateError
from stream_app.errors import FatalError
from stream_app.model.event import Event
from stream_app.model.record import IntVector
from stream_app.pipeline.state.event_state import MAX_ARRIVAL, EventState
from stream_app.pipeline.state.packing import compress_state
from stream_app.pipeline.state.snapshot import VERSION, KeyFilter, read


class ShardState:
    """The state of all event types of a shard.

    `snapshot` and `restore` are exact: after a restore, all results are as if the process had not restarted.
    """

    def __init__(self, events: Mapping[str, Event], max_ids: int, forget_after: int = 0) -> None:
        self._arguments, self._forget_after = (events, max_ids, forget_after), forget_after
        self.clear()

    def clear(self) -> None:
        """Discard the whole state."""
        events, max_ids, forget_after = self._arguments
        self._events = {name: EventState(event, max_ids, forget_after) for name, event in events.items()}
        self._latest = 0

    def __getitem__(self, event: str) -> EventState:
        return self._events[event]

    @property
    def devices(self) -> int:
        """The number of devices in memory, including forgotten ones whose memory is not yet reclaimed."""
        return sum(len(state.devices) for state in self._events.values())

    @property
    def forgotten(self) -> int:
        """The number of devices forgotten since this object was created."""
        return sum(state.forgotten for state in self._events.values())

    def effective_arrivals(self, arrived: IntVector) -> IntVector:
        """Return the running maximum of arrivals over all records of the shard, shape (n,), in milliseconds."""
        arrivals: IntVector = np.maximum.accumulate(np.clip(arrived, self._latest, MAX_ARRIVAL))
        if len(arrivals):
            self._latest = int(arrivals[-1])
            for state in self._events.values():
                state.devices.fill_unknown_arrivals(int(arrivals[0]))
        return arrivals

    def split_at_expiry(self, arrivals: IntVector) -> list[tuple[int, int]]:
        """Split records into ranges [start, stop) during which no device can expire and return."""
        if not self._forget_after or not len(arrivals) or arrivals[-1] - arrivals[0] <= self._forget_after:
            return [(0, len(arrivals))]
        stops = [0]
        while stops[-1] < len(arrivals):
            latest = arrivals[stops[-1]] + self._forget_after
            stops.append(int(np.searchsorted(arrivals, latest, side="right")))
        return list(pairwise(stops))

    def reclaim_memory(self) -> None:
        """Reclaim the memory of forgotten devices if they are many."""
        for state in self._events.values():
            state.reclaim_memory(self._latest)

    def snapshot(self) -> bytes:
        """Serialize the whole state, compressed and with a checksum."""
        events = {name: state.dump(self._latest) for name, state in self._events.items()}
        return compress_state({"version": VERSION, "latest": self._latest, "events": events})

    def restore(self, snapshot: bytes, keep: KeyFilter = lambda _key: True) -> None:
        """Add the devices of a snapshot for which `keep` holds.

        Raises FatalError if it is damaged, inconsistent, not a snapshot, or of an unsupported version; part of it may
        then have been added.
        """
        stored = read(snapshot)
        self._latest = max(self._latest, stored.latest)
        for name, dumped in stored.events.items():
            if name in self._events:
                try:
                    self._events[name].load(dumped, keep)
                except StateError as error:
                    raise FatalError(f"unusable state snapshot: event {name!r}: {error}") from error
