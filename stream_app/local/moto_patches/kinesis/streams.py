"""The state of a stream that moto's model lacks: sequence numbers, shard logs, shard lifetimes and routing.

Records are routed by hash key to open shards only, including the highest hash key (2^128 - 1). Sequence numbers are
unique and increase over the whole stream. One lock per stream makes a put atomic.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from weakref import WeakKeyDictionary

from moto.kinesis.models import Shard, Stream

from stream_app.local.moto_patches import clock
from stream_app.local.moto_patches.kinesis.sequence import Numbering
from stream_app.local.moto_patches.kinesis.shard_log import ShardLog

HOUR_MS = 3_600_000
DEFAULT_MAX_RECORD_KIB = 1_024


class ShardState:
    """One shard: its log, the times when it opened and closed (ms), its first and its closing ordinal."""

    __slots__ = ("closed", "closing", "first", "log", "opened", "shard")

    def __init__(self, shard: Shard, opened: int, first: int) -> None:
        self.shard = shard
        self.opened = opened
        self.first = first
        self.log = ShardLog()
        self.closed: int | None = None
        self.closing: int | None = None

    def exhausted(self, after: int) -> bool:
        """Return whether the shard is closed and has no records after the ordinal `after`."""
        return self.closed is not None and after >= self.log.last


class StreamState:
    """The state of one stream. Hold `lock` for every access. `max_record_kib` is MaxRecordSizeInKiB."""

    def __init__(self, stream: Stream) -> None:
        self.lock = threading.RLock()
        self.created = clock.now_ms()
        self.numbering = Numbering(self.created)
        self.max_record_kib = DEFAULT_MAX_RECORD_KIB
        self.shards: dict[str, ShardState] = {}
        self._trimmed_at = self.created
        self._next = 0
        self._routes: tuple[list[int], list[ShardState]] | None = None
        self.sync_shards(stream)

    def next_ordinal(self) -> int:
        """Allocate the next ordinal of the stream."""
        self._next += 1
        return self._next - 1

    @property
    def newest_ordinal(self) -> int:
        """The last ordinal that was allocated."""
        return self._next - 1

    def sync_shards(self, stream: Stream) -> None:
        """Update the shard states from moto's model: add new shards and mark closed ones."""
        now = max(clock.now_ms(), self.created)
        for state in self.shards.values():
            if state.closed is None and not state.shard.is_open:
                state.closed, state.closing = max(now, state.log.latest_arrival), self.next_ordinal()
        for shard_id, shard in stream.shards.items():
            if shard_id not in self.shards:
                self.shards[shard_id] = ShardState(shard, now, self.next_ordinal())
        self._routes = None

    def route(self, hash_key: int) -> ShardState:
        """Return the open shard whose range contains `hash_key` (0 to 2^128 - 1)."""
        if self._routes is None:
            live = [state for state in self.shards.values() if state.closed is None]
            live.sort(key=lambda state: state.shard.starting_hash)
            self._routes = [state.shard.starting_hash for state in live], live
        starts, live = self._routes
        return live[bisect_right(starts, hash_key) - 1]

    def horizon(self, stream: Stream) -> int:
        """Return TRIM_HORIZON in milliseconds: the latest of retention limit, stream creation and explicit trim."""
        return max(self._trimmed_at, clock.now_ms() - stream.retention_period_hours * HOUR_MS)

    def expire(self, stream: Stream) -> None:
        """Remove the records older than the retention period."""
        horizon = self.horizon(stream)
        for state in self.shards.values():
            state.log.trim(arrived_before=horizon)

    def trim(self, before: int | None) -> int:
        """Move TRIM_HORIZON forward to `before` (ms) regardless of the retention period.

        None trims all current records, including those of the current millisecond. Returns the number removed.
        """
        now = clock.now_ms()
        self._trimmed_at = max(self._trimmed_at, min(now if before is None else before, now))
        below = self._next if before is None else None
        logs = [state.log for state in self.shards.values()]
        return sum(log.trim(arrived_before=self._trimmed_at, ordinal_below=below) for log in logs)

    def issued(self, number: int, shard: ShardState) -> bool:
        """Return whether this shard issued the sequence number, to a record (possibly trimmed) or as a range end."""
        last = shard.closing if shard.closing is not None else self.newest_ordinal
        return self.numbering.owns(number, shard.shard._shard_id, shard.first, last)

    def trim_to(self, number: int) -> int | None:
        """Remove all records before a sequence number from its shard.

        Returns the number of records removed, or None if the stream did not issue the sequence number.
        """
        owner = next((shard for shard in self.shards.values() if self.issued(number, shard)), None)
        return owner.log.trim(ordinal_below=self.numbering.ordinal(number)) if owner is not None else None

    def live(self, stream: Stream) -> list[ShardState]:
        """Return the shards ordered by ID, without those that were closed before TRIM_HORIZON."""
        horizon = self.horizon(stream)
        kept = [state for state in self.shards.values() if state.closed is None or state.closed >= horizon]
        return sorted(kept, key=lambda state: state.shard.shard_id)


_states: WeakKeyDictionary[Stream, StreamState] = WeakKeyDictionary()
_states_lock = threading.Lock()


def state_of(stream: Stream) -> StreamState:
    """Return the state of a moto stream, created on first use and dropped with the stream."""
    state = _states.get(stream)
    if state is not None:
        return state
    with _states_lock:
        state = _states.get(stream)
        if state is None:
            state = _states[stream] = StreamState(stream)
        return state
