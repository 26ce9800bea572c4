"""Sends alerts to the bus. A bus that does not accept them neither stops the shard nor slows it down."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from stream_app.aws.retry import Attempt
from stream_app.consumer.alerting.alerts import entry
from stream_app.consumer.alerting.store import Alert, AlertStore, name_of, position
from stream_app.model.record import Position

ENTRIES = 10  # PutEvents takes ten
MOST_WAITING = 1_000
"""How many unsent alerts are kept in memory; more go to the store."""

# A call that failed is followed by a pause, which doubles from try to try, and is so long that calls to a bus that
# hangs take no more than this share of the time.
_FIRST_PAUSE, _LONGEST_PAUSE, _SHARE = 1.0, 60.0, 0.05
# Seconds after which a batch waits no longer for its alerts, though the bus accepts them.
_PATIENCE = 5.0
# Entries of stored alerts that are sent after one batch.
_STORED_AT_ONCE = 100
# The bus will never accept this entry, says the reference of PutEvents; all other errors may pass.
_REFUSED = frozenset({"InvalidArgument", "MalformedDetail", "RedactionFailure"})

T = TypeVar("T")
Warn = Callable[..., object]


class _Queued(NamedTuple):
    """An alert and the entry of PutEvents that carries it."""

    alert: Alert
    entry: dict[str, Any]


class Outbox:
    """Alerts of one shard on their way to the bus: at least once each, in no order. No method raises.

    An alert waits in memory until the bus accepts it. Before a checkpoint passes its record, and when there are too
    many, it is stored, and sent when the bus accepts alerts again, by this consumer or by the next one of the shard.
    It is dropped, and counted, when neither the bus nor the store takes it: then the column `anomaly` of the stored
    row is what remains.
    """

    def __init__(
        self,
        events: Any,
        bus: str,
        store: AlertStore,
        *,
        warn: Warn,
        attempt: Attempt = lambda _what, action: action(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`events` is boto3's client, `attempt` repeats a write to the store that failed."""
        self._events, self._bus, self._store = events, bus, store
        self._warn, self._attempt, self._clock = warn, attempt, clock
        self._begin("")

    def _begin(self, shard: str) -> None:
        self._shard = shard
        self._waiting: list[_Queued] = []
        self._stored: deque[tuple[str, str]] = deque()
        self._rest: list[_Queued] | None = None  # what is left to send of the first of `_stored`
        self._failures, self._next = 0, self._clock()
        self.dropped = 0
        """How many alerts were lost."""

    @property
    def waiting(self) -> int:
        """How many alerts are in memory, not accepted yet."""
        return len(self._waiting)

    def start(self, shard: str, parents: Sequence[str] = ()) -> None:
        """Begin with a shard: find the alerts that an earlier consumer of it, or of its parents, had to store."""
        self._begin(shard)
        for owner in (*parents, shard):
            names = self._with_store("list", self._store.names, owner)
            self._stored += [(owner, name) for name in names or ()]

    def add(self, alerts: Sequence[Alert]) -> None:
        """Queue alerts for the next flush."""
        for alert in alerts:
            try:
                queued = _Queued(alert, entry(alert, self._bus))
            except Exception as error:  # text that is not Unicode, for one: it would fail at each try
                self.lost(1, f"an alert that cannot be encoded: {error}")
            else:
                self._waiting.append(queued)

    def lost(self, count: int, error: str) -> None:
        """Count alerts that are dropped."""
        self.dropped += count
        self._warn("alerts were dropped", count=count, error=error)

    def flush(self) -> None:
        """Send what waits, unless the bus is given a pause; then something of what is stored."""
        if (self._waiting or self._stored) and self._clock() >= self._next:
            self._send()
        if len(self._waiting) > MOST_WAITING:
            self._keep(self._waiting, lambda _what, action: action())

    def secure(self, last: Position | None) -> None:
        """Store the unsent alerts of records up to `last` (None: of all), which a checkpoint is about to pass."""
        passed = [item for item in self._waiting if last is None or position(item.alert).order <= last.order]
        if passed:
            self._keep(passed, self._attempt)
        for owner, name in [item for item in self._stored if item[0] != self._shard]:
            self._take_over(owner, name)

    def _send(self) -> None:
        begun, before = self._clock(), self._failures
        try:
            refused = self._send_waiting(begun)
            if not refused:
                self._send_stored()
        except Exception as error:
            self._pause(begun, str(error))
            return
        if refused:
            self._pause(begun, ", ".join(sorted(refused)))
        elif before:
            self._failures = 0
            self._warn("alerts are accepted again", waiting=self.waiting, stored=len(self._stored))

    def _send_waiting(self, begun: float) -> set[str]:
        """Send until nothing waits, no entry of a call is accepted, or it takes too long; the codes of refusals."""
        refused: list[_Queued] = []
        codes: set[str] = set()
        while self._waiting and self._clock() - begun < _PATIENCE:
            left, found = self._put(self._waiting[:ENTRIES])
            taken = len(self._waiting[:ENTRIES])
            del self._waiting[:taken]
            refused += left
            codes |= found
            if len(left) == taken:
                break
        self._waiting += refused  # behind the others, which may be accepted
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
        """Read the first stored object; one that cannot be read is left to the next consumer of the shard."""
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
        """One call of PutEvents: the alerts that were not accepted and may be later, and why."""
        answer = self._events.put_events(Entries=[item.entry for item in queued])
        left, codes = [], set[str]()
        for item, result in zip(queued, answer["Entries"], strict=True):
            code = result.get("ErrorCode")
            if code in _REFUSED:
                self.lost(1, f"{code}: {item.alert['id']}")
            elif code:
                left.append(item)
                codes.add(str(code))
        return left, codes

    def _pause(self, begun: float, error: str) -> None:
        now = self._clock()
        doubled = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._failures, 16))
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
        """Move what a parent shard left: no consumer of it will start again."""

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
