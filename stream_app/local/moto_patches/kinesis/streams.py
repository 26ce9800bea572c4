"""What a stream knows beyond moto's model of it: its numbering, its shards' logs and lives, its routing.

Corrects: records go to open shards only, by hash key, the highest one (2^128 - 1) included; sequence numbers are
long, unique and rising over the stream; one lock per stream makes a put atomic.
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
    """The life of one shard: its log, when it opened and closed (ms), its first and its closing ordinal."""

    __slots__ = ("closed", "closing", "first", "log", "opened", "shard")

    def __init__(self, shard: Shard, opened: int, first: int) -> None:
        self.shard = shard
        self.opened = opened
        self.first = first
        self.log = ShardLog()
        self.closed: int | None = None
        self.closing: int | None = None

    def exhausted(self, after: int) -> bool:
        """Whether nothing can ever follow the ordinal `after`: the shard is closed and its log read to the end."""
        return self.closed is not None and after >= self.log.last


class StreamState:
    """Hold `lock` around every use. `max_record_kib` is the stream's setting of that name."""

    def __init__(self, stream: Stream) -> None:
        self.lock = threading.RLock()
        self.created = clock.now_ms()
        self.numbering = Numbering(self.created)
        self.max_record_kib = DEFAULT_MAX_RECORD_KIB
        self.shards: dict[str, ShardState] = {}
        self._trimmed_at = self.created
        self._next = 0
        self._routes: tuple[list[int], list[ShardState]] | None = None
        self.adopt(stream)

    def take_ordinal(self) -> int:
        """The next place in the order of the stream."""
        self._next += 1
        return self._next - 1

    @property
    def newest(self) -> int:
        """The last ordinal that was given out."""
        return self._next - 1

    def adopt(self, stream: Stream) -> None:
        """Notice which of moto's shards are new and which were closed since."""
        now = max(clock.now_ms(), self.created)
        for state in self.shards.values():
            if state.closed is None and not state.shard.is_open:
                state.closed, state.closing = max(now, state.log.latest_arrival), self.take_ordinal()
        for shard_id, shard in stream.shards.items():
            if shard_id not in self.shards:
                self.shards[shard_id] = ShardState(shard, now, self.take_ordinal())
        self._routes = None

    def route(self, hash_key: int) -> ShardState:
        """The open shard whose range holds `hash_key` (0 to 2^128 - 1)."""
        if self._routes is None:
            live = [state for state in self.shards.values() if state.closed is None]
            live.sort(key=lambda state: state.shard.starting_hash)
            self._routes = [state.shard.starting_hash for state in live], live
        starts, live = self._routes
        return live[bisect_right(starts, hash_key) - 1]

    def horizon(self, stream: Stream) -> int:
        """TRIM_HORIZON in ms: the retention period ago, never before the stream, never before a deliberate trim."""
        return max(self._trimmed_at, clock.now_ms() - stream.retention_period_hours * HOUR_MS)

    def expire(self, stream: Stream) -> None:
        """Forget the records that are older than the retention period."""
        horizon = self.horizon(stream)
        for state in self.shards.values():
            state.log.trim(arrived_before=horizon)

    def trim(self, before: int | None) -> int:
        """Move TRIM_HORIZON forward to `before` ms, whatever the retention period; how many records went.

        None is all there are now, those of this millisecond too.
        """
        now = clock.now_ms()
        self._trimmed_at = max(self._trimmed_at, min(now if before is None else before, now))
        below = self._next if before is None else None
        logs = [state.log for state in self.shards.values()]
        return sum(log.trim(arrived_before=self._trimmed_at, ordinal_below=below) for log in logs)

    def gave(self, number: int, shard: ShardState) -> bool:
        """Whether a sequence number was given in this shard: to a record, gone or not, or as an end of its range."""
        last = shard.closing if shard.closing is not None else self.newest
        return self.numbering.owns(number, shard.shard._shard_id, shard.first, last)

    def trim_to(self, number: int) -> int | None:
        """Forget the records of a number's shard before it; how many went, None for a number not of this stream."""
        owner = next((shard for shard in self.shards.values() if self.gave(number, shard)), None)
        return owner.log.trim(ordinal_below=self.numbering.ordinal(number)) if owner is not None else None

    def live(self, stream: Stream) -> list[ShardState]:
        """The shards that have not expired, in order of their ids: closed longer ago than TRIM_HORIZON is expired."""
        horizon = self.horizon(stream)
        kept = [state for state in self.shards.values() if state.closed is None or state.closed >= horizon]
        return sorted(kept, key=lambda state: state.shard.shard_id)


_states: WeakKeyDictionary[Stream, StreamState] = WeakKeyDictionary()
_states_lock = threading.Lock()


def state_of(stream: Stream) -> StreamState:
    """The state of one of moto's streams; it is made when first asked for, and goes with the stream."""
    state = _states.get(stream)
    if state is not None:
        return state
    with _states_lock:
        state = _states.get(stream)
        if state is None:
            state = _states[stream] = StreamState(stream)
        return state
