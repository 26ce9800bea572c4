"""The alert outbox delivers each alert at least once and never blocks a shard for long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.consumer.alerting.outbox import ENTRIES, MAX_WAITING, Outbox
from stream_app.consumer.alerting.store import name_of
from stream_app.model.record import Position

SHARD = "shardId-000000000000"


@dataclass
class Bus:
    """PutEvents: rejects entries by number with an error code, or fails; each call takes `takes` seconds."""

    refuse: dict[int, str] = field(default_factory=dict)
    down: bool = False
    takes: float = 0.0
    now: float = 0.0
    count: int = 0
    calls: int = 0
    accepted: list[int] = field(default_factory=list)
    largest: int = 0

    def put_events(self, *, Entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
        self.calls += 1
        self.now += self.takes
        self.largest = max(self.largest, len(Entries))
        if self.down:
            raise ConnectionError("no route")
        answers: list[dict[str, str]] = []
        for entry in Entries:
            code = self.refuse.get(self.count)
            self.count += 1
            if code is None:
                self.accepted.append(int(msgspec.json.decode(entry["Detail"])["sequence"]))
            answers.append({"EventId": "1"} if code is None else {"ErrorCode": code})
        return {"Entries": answers}


@dataclass
class Store:
    """Stores objects in memory; fails while `down`."""

    objects: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    down: bool = False

    def _check_available(self) -> None:
        if self.down:
            raise PermissionError("AccessDenied")

    def save(self, shard: str, name: str, alerts: Sequence[Any]) -> None:
        self._check_available()
        self.objects[shard, name] = [dict(alert) for alert in alerts]

    def load(self, shard: str, name: str) -> list[dict[str, Any]]:
        self._check_available()
        return self.objects.get((shard, name), [])

    def names(self, shard: str) -> list[str]:
        self._check_available()
        return [name for owner, name in self.objects if owner == shard]

    def forget(self, shard: str, name: str) -> None:
        self._check_available()
        self.objects.pop((shard, name), None)


def alert(number: int, **more: Any) -> dict[str, Any]:
    return {"id": str(number), "key": "a", "shard": SHARD, "sequence": str(number), "sub": 0, **more}


def alerts(*numbers: int) -> list[dict[str, Any]]:
    return [alert(number) for number in numbers]


@dataclass
class Case:
    """The outbox of a shard with its bus, store and warnings."""

    bus: Bus = field(default_factory=Bus)
    store: Store = field(default_factory=Store)
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.outbox = self.new_outbox()

    def new_outbox(self, parents: Sequence[str] = (), shard: str = SHARD) -> Outbox:
        bus: Any = self.bus
        outbox = Outbox(
            bus,
            "bus",
            self.store,
            warn=lambda what, **_values: self.warnings.append(what),
            clock=lambda: self.bus.now,
        )
        outbox.start(shard, parents)
        return outbox

    def batches(self, count: int, seconds: float = 0.0) -> None:
        """Process `count` batches without anomalies, `seconds` apart."""
        for _ in range(count):
            self.bus.now += seconds
            self.outbox.flush()


@given(st.integers(0, 35), st.sets(st.integers(0, 60)))
def test_each_alert_is_accepted_once_despite_rejections(count: int, refused: set[int]) -> None:
    case = Case(Bus(dict.fromkeys(refused, "ThrottlingException")))
    case.outbox.add(alerts(*range(count)))
    case.batches(2 * len(refused) + 1, seconds=61)
    assert sorted(case.bus.accepted) == list(range(count))
    assert case.bus.largest <= ENTRIES
    assert (case.outbox.waiting, case.outbox.dropped) == (0, 0)
    calls = case.bus.calls
    case.outbox.flush()
    assert case.bus.calls == calls  # nothing is left to send


@pytest.mark.parametrize("code", ["InvalidArgument", "MalformedDetail", "RedactionFailure"])
def test_a_permanently_rejected_entry_is_dropped_and_counted(code: str) -> None:
    case = Case(Bus({1: code}))
    case.outbox.add(alerts(*range(25)))
    case.outbox.flush()
    assert sorted(case.bus.accepted) == [at for at in range(25) if at != 1]
    assert (case.outbox.waiting, case.outbox.dropped) == (0, 1)
    assert case.warnings == ["alerts were dropped"]


def test_throttled_entries_are_retried_after_the_other_entries() -> None:
    case = Case(Bus(dict.fromkeys(range(9), "AccessDeniedException")))
    case.outbox.add(alerts(*range(30)))
    case.outbox.flush()
    assert sorted(case.bus.accepted) == list(range(9, 30))
    assert case.outbox.waiting == 9
    case.batches(1, seconds=61)
    assert case.outbox.waiting == 0


def test_an_alert_that_cannot_be_encoded_is_dropped_and_counted() -> None:
    case = Case()
    case.outbox.add([alert(1), alert(2, explanation="\ud800"), alert(3, values={"a": object()}), alert(4)])
    case.outbox.flush()
    assert case.bus.accepted == [1, 4]
    assert case.outbox.dropped == 2


# ---- Outages of the bus


def test_an_unavailable_bus_is_called_rarely_and_no_alert_is_lost() -> None:
    case = Case(Bus(down=True))
    for number in range(600):  # ten minutes of batches, ten per second
        case.outbox.add(alerts(number))
        case.batches(10, seconds=0.1)
    assert case.bus.calls <= 6 + 10
    assert case.outbox.waiting == 600
    case.bus.down = False
    case.batches(1, seconds=61)
    assert sorted(case.bus.accepted) == list(range(600))
    assert case.warnings[-1] == "alerts are accepted again"


@pytest.mark.parametrize("takes", [0.5, 14.0])
def test_a_hanging_bus_takes_at_most_five_percent_of_the_time(takes: float) -> None:
    case = Case(Bus(down=True, takes=takes))
    case.outbox.add(alerts(1))
    case.batches(3_600, seconds=1)
    assert case.bus.calls * takes <= 0.05 * case.bus.now + takes


def test_a_slow_bus_delays_a_batch_for_a_few_seconds_at_most() -> None:
    case = Case(Bus(takes=2.0))
    case.outbox.add(alerts(*range(500)))
    case.outbox.flush()
    assert case.bus.now <= 8
    assert case.outbox.waiting == 500 - len(case.bus.accepted) < 500
    case.batches(50)
    assert sorted(case.bus.accepted) == list(range(500))


def test_alerts_beyond_the_memory_limit_are_stored_and_sent_after_the_outage() -> None:
    case = Case(Bus(down=True))
    for first in range(0, 5_000, 100):
        case.outbox.add(alerts(*range(first, first + 100)))
        case.outbox.flush()
        assert case.outbox.waiting <= MAX_WAITING
    assert sum(map(len, case.store.objects.values())) + case.outbox.waiting == 5_000
    case.bus.down = False
    case.bus.now += 61
    calls = case.bus.calls
    case.outbox.flush()
    assert case.bus.calls - calls <= (MAX_WAITING + 100) // ENTRIES  # stored alerts are sent gradually
    case.batches(60)
    assert sorted(case.bus.accepted) == list(range(5_000))
    assert case.store.objects == {}
    assert case.outbox.dropped == 0


def test_alerts_are_dropped_and_counted_if_the_store_fails_too() -> None:
    case = Case(Bus(down=True), Store(down=True))
    case.outbox.add(alerts(*range(MAX_WAITING + 1)))
    case.outbox.flush()
    assert (case.outbox.waiting, case.outbox.dropped) == (0, MAX_WAITING + 1)
    case.outbox.add(alerts(7))
    case.outbox.secure(None)
    assert (case.outbox.waiting, case.outbox.dropped) == (0, MAX_WAITING + 2)


# ---- Checkpoints and the next consumer


def test_alerts_up_to_the_checkpoint_are_stored_under_their_positions() -> None:
    case = Case(Bus(down=True))
    case.outbox.add(alerts(8, 9, 10, 11))
    case.outbox.flush()
    case.outbox.secure(Position(SHARD, "10"))
    assert list(case.store.objects) == [(SHARD, "8-10.json")]
    assert case.outbox.waiting == 1
    case.outbox.secure(Position(SHARD, "10"))
    assert len(case.store.objects) == 1
    case.outbox.secure(None)
    assert list(case.store.objects) == [(SHARD, "8-10.json"), (SHARD, "11-11.json")]


def test_the_next_consumer_of_the_shard_sends_and_deletes_stored_alerts() -> None:
    case = Case(Bus(down=True))
    case.outbox.add(alerts(*range(250)))
    case.outbox.secure(None)
    case.bus.down = False
    case.outbox = case.new_outbox()
    case.batches(3)
    assert sorted(case.bus.accepted) == list(range(250))
    assert case.store.objects == {}


def test_a_stored_object_is_deleted_once_all_its_alerts_are_accepted() -> None:
    case = Case(Bus(down=True))
    case.outbox.add(alerts(1, 2, 3))
    case.outbox.secure(None)
    case.bus.down, case.bus.refuse = False, {1: "ThrottlingException"}
    case.outbox = case.new_outbox()
    case.outbox.flush()
    assert case.bus.accepted == [1, 3]
    assert case.store.objects
    case.batches(1, seconds=61)
    assert case.bus.accepted == [1, 3, 2]
    assert case.store.objects == {}


def test_a_child_shard_takes_over_the_stored_alerts_of_its_parents() -> None:
    case = Case(Bus(down=True))
    case.outbox.add(alerts(1, 2))
    case.outbox.secure(None)
    case.outbox = case.new_outbox([SHARD], "shardId-000000000001")
    case.batches(1, seconds=61)
    case.outbox.secure(Position("shardId-000000000001", "5"))
    assert list(case.store.objects) == [("shardId-000000000001", "1-2.json")]
    case.bus.down = False
    case.outbox = case.new_outbox([], "shardId-000000000001")
    case.outbox.flush()
    assert case.bus.accepted == [1, 2]
    assert case.store.objects == {}


def test_an_unreadable_object_does_not_block_the_others() -> None:
    case = Case()
    case.store.objects[SHARD, "1-1.json"] = alerts(1)
    case.store.objects[SHARD, "2-2.json"] = alerts(2)
    load = case.store.load

    def broken(shard: str, name: str) -> list[dict[str, Any]]:
        if name == "1-1.json":
            raise msgspec.DecodeError("no JSON")
        return load(shard, name)

    case.store.load = broken  # type: ignore[method-assign]
    case.outbox = case.new_outbox()
    case.batches(2)
    assert case.bus.accepted == [2]
    assert list(case.store.objects) == [(SHARD, "1-1.json")]


def test_an_object_is_named_by_its_first_and_last_position() -> None:
    assert name_of([alert(100), alert(99, sub=3), alert(99)]) == "99-100.json"
    assert name_of([alert(99, sub=3)]) == "99.3-99.3.json"
