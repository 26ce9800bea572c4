"""Sends alerts to the bus. A bus that does not accept them neither stops the shard nor slows it down."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from stream_app.aws.retry import Attempt
from stream_app.consumer.alerting.alerts import Alert, entry
from stream_app.consumer.alerting.store import AlertStore, name_of, position
from stream_app.model.record import Position

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_events.type_defs import PutEventsRequestEntryTypeDef

ENTRIES = 10  # the limit of one PutEvents request
MAX_WAITING = 1_000
"""The maximum of unsent alerts in memory; when there are more, they are stored."""

# After a failed request there is a pause, which doubles with each failure. It is long enough that requests to a bus
# that does not respond take at most this share of the time.
_FIRST_PAUSE, _MAX_PAUSE, _SHARE = 1.0, 60.0, 0.05
# The maximum of seconds that sending alerts may delay a batch.
_MAX_SECONDS = 5.0
# The maximum of stored alerts that are sent after one batch.
_STORED_AT_ONCE = 100
# Permanent errors of an entry, according to the API reference of PutEvents; all others may be temporary.
_PERMANENT = frozenset({"InvalidArgument", "MalformedDetail", "RedactionFailure"})

T = TypeVar("T")
Warn = Callable[..., object]


class _Queued(NamedTuple):
    """An alert and its entry of PutEvents."""

    alert: Alert
    entry: PutEventsRequestEntryTypeDef


class Outbox:
    """Sends the alerts of one shard to the bus at least once, in any order. No method raises.

    An alert stays in memory until the bus accepts it. Before a checkpoint passes its record, or when there are too
    many, it is stored; this consumer or the next one of the shard sends it when the bus accepts alerts again. If
    neither the bus nor the store accepts it, it is dropped and counted; the column `anomaly` of the row remains.
    """

    def __init__(
        self,
        events: EventBridgeClient,
        bus: str,
        store: AlertStore,
        *,
        warn: Warn,
        attempt: Attempt = lambda _what, action: action(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`attempt` retries writes to the store; `clock` returns seconds."""
        self._events, self._bus, self._store = events, bus, store
        self._warn, self._attempt, self._clock = warn, attempt, clock
        self._begin("")

    def _begin(self, shard: str) -> None:
        self._shard = shard
        self._waiting: list[_Queued] = []
        self._stored: deque[tuple[str, str]] = deque()
        self._rest: list[_Queued] | None = None  # unsent alerts of the first object of `_stored`
        self._failures, self._next = 0, self._clock()
        self.dropped = 0
        """The number of alerts that were lost."""

    @property
    def waiting(self) -> int:
        """The number of alerts in memory that the bus has not accepted yet."""
        return len(self._waiting)

    def start(self, shard: str, parents: Sequence[str] = ()) -> None:
        """Start with a shard: list the alerts that earlier consumers of it or of its parents stored."""
        self._begin(shard)
        for owner in (*parents, shard):
            names = self._with_store("list", self._store.names, owner)
            self._stored += [(owner, name) for name in names or ()]

    def add(self, alerts: Sequence[Alert]) -> None:
        """Queue alerts for the next flush."""
        for alert in alerts:
            try:
                queued = _Queued(alert, entry(alert, self._bus))
            except Exception as error:  # for example text that is not Unicode; a retry would fail too
                self.lost(1, f"an alert that cannot be encoded: {error}")
            else:
                self._waiting.append(queued)

    def lost(self, count: int, error: str) -> None:
        """Count and log alerts that are dropped."""
        self.dropped += count
        self._warn("alerts were dropped", count=count, error=error)

    def flush(self) -> None:
        """Send queued alerts, then some of the stored ones, unless there is a pause."""
        if (self._waiting or self._stored) and self._clock() >= self._next:
            self._send()
        if len(self._waiting) > MAX_WAITING:
            self._keep(self._waiting, lambda _what, action: action())

    def secure(self, last: Position | None) -> None:
        """Store unsent alerts of records up to `last` (None: all), which a checkpoint is about to pass."""
        passed = [item for item in self._waiting if last is None or position(item.alert).order <= last.order]
        if passed:
            self._keep(passed, self._attempt)
        for owner, name in [item for item in self._stored if item[0] != self._shard]:
            self._take_over(owner, name)

    def _send(self) -> None:
        begun, before = self._clock(), self._failures
        try:
            codes = self._send_waiting(begun)
            if not codes:
                self._send_stored()
        except Exception as error:
            self._pause(begun, str(error))
            return
        if codes:
            self._pause(begun, ", ".join(sorted(codes)))
        elif before:
            self._failures = 0
            self._warn("alerts are accepted again", waiting=self.waiting, stored=len(self._stored))

    def _send_waiting(self, begun: float) -> set[str]:
        """Send until all are sent, a request has no success, or time is up; return the error codes."""
        failed: list[_Queued] = []
        codes: set[str] = set()
        while self._waiting and self._clock() - begun < _MAX_SECONDS:
            left, found = self._put(self._waiting[:ENTRIES])
            taken = len(self._waiting[:ENTRIES])
            del self._waiting[:taken]
            failed += left
            codes |= found
            if len(left) == taken:
                break
        self._waiting += failed  # after the others, which the bus may accept
        return codes

    def _send_stored(self) -> None:
        for _ in range(_STORED_AT_ONCE // ENTRIES):
            if not self._stored or not self._load():
                return
            if self._rest:
                left, codes = self._put(self._rest[:ENTRIES])
                self._rest = [*self._rest[ENTRIES:], *left]
                if codes:
                    raise _RefusedError(", ".join(sorted(codes)))
            if not self._rest:
                self._with_store("forget", self._store.forget, *self._stored[0])
                self._stored.popleft()
                self._rest = None

    def _load(self) -> bool:
        """Load the first stored object; if that fails, leave it to the next consumer of the shard."""
        if self._rest is None:
            loaded = self._with_store("load", self._loaded, *self._stored[0])
            if loaded is None:
                self._stored.popleft()
                return False
            self._rest = loaded
        return True

    def _loaded(self, owner: str, name: str) -> list[_Queued]:
        return [_Queued(alert, entry(alert, self._bus)) for alert in self._store.load(owner, name)]

    def _with_store(self, what: str, action: Callable[..., T], *where: str) -> T | None:
        try:
            return action(*where)
        except Exception as error:
            self._warn(f"stored alerts: {what} failed", error=str(error))
            return None

    def _put(self, queued: Sequence[_Queued]) -> tuple[list[_Queued], set[str]]:
        """Make one PutEvents request; return the alerts to retry, and their error codes."""
        response = self._events.put_events(Entries=[item.entry for item in queued])
        left, codes = [], set[str]()
        for item, result in zip(queued, response["Entries"], strict=True):
            code = result.get("ErrorCode")
            if code in _PERMANENT:
                self.lost(1, f"{code}: {item.alert['id']}")
            elif code:
                left.append(item)
                codes.add(str(code))
        return left, codes

    def _pause(self, begun: float, error: str) -> None:
        now = self._clock()
        doubled = min(_MAX_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._failures, 16))
        seconds = max(doubled, (now - begun) / _SHARE)
        self._failures, self._next = self._failures + 1, now + seconds
        stored = len(self._stored)
        self._warn(
            "alerts are not accepted",
            error=error,
            waiting=self.waiting,
            stored=stored,
            again_in_seconds=round(seconds, 1),
        )

    def _keep(self, queued: Sequence[_Queued], attempt: Attempt) -> None:
        """Move alerts from memory to the store."""
        kept = [item.alert for item in queued]
        name = name_of(kept)
        try:
            attempt("alerts", lambda: self._store.save(self._shard, name, kept))
        except Exception as error:
            self.lost(len(kept), f"{name}: {error}")
        else:
            if (self._shard, name) not in self._stored:
                self._stored.append((self._shard, name))
        gone = set(map(id, kept))
        self._waiting = [item for item in self._waiting if id(item.alert) not in gone]

    def _take_over(self, owner: str, name: str) -> None:
        """Move a parent shard's stored alerts to this shard, because no consumer of the parent will start again."""

        def move() -> bool:
            alerts = self._store.load(owner, name)
            if alerts:
                self._store.save(self._shard, name, alerts)
                self._stored.append((self._shard, name))
            self._store.forget(owner, name)
            return True

        if self._with_store("take over", move):
            if self._stored[0] == (owner, name):
                self._rest = None
            self._stored.remove((owner, name))


class _RefusedError(Exception):
    """Entries were not accepted, with their codes."""
