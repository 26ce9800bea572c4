"""Publishing: every record is sent once, in order per device, and counted, or an error is raised."""

from __future__ import annotations

import io
import itertools
import json
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from stream_app.aws.retry import Policy
from stream_app.cli.views.sent import as_table, format_rows, to_json
from stream_app.errors import ConfigError, FatalError
from stream_app.ingest.envelope import REPEATED, OutgoingRecord
from stream_app.ingest.producer import Sent, publish
from stream_app.ingest.publish_options import Clocks, Destination, PublishOptions, Via
from stream_app.model.record import Code

START = datetime(2016, 12, 1, tzinfo=UTC)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
few = settings(deadline=None, max_examples=30)


class Clock:
    """A clock that advances only in `pause`."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def pause(self, seconds: float) -> None:
        self.seconds += seconds

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds)


class Aws:
    """Rejects entries of PutEvents and PutRecords at random; `taken` contains (route, key, ID) in order."""

    def __init__(self, chance: float = 0.0, seed: int = 0) -> None:
        self.taken: list[tuple[str, str, str]] = []
        self.sizes: list[tuple[str, int]] = []
        self.sent_at: list[str] = []
        self._chance, self._rng, self._lock = chance, Random(seed), threading.Lock()

    def put_events(self, Entries: list[dict[str, Any]]) -> dict[str, Any]:
        pairs = [(entry["Resources"][0], json.loads(entry["Detail"])) for entry in Entries]
        answers = self._take("bus", pairs)
        return {"FailedEntryCount": 0, "Entries": answers}

    def put_records(self, StreamName: str, Records: list[dict[str, Any]]) -> dict[str, Any]:
        pairs = [(record["PartitionKey"], self._detail(record["Data"])) for record in Records]
        answers = self._take("stream", pairs)
        return {"FailedRecordCount": sum("ErrorCode" in a for a in answers), "Records": answers}

    def _detail(self, data: bytes) -> dict[str, Any]:
        read: dict[str, Any] = json.loads(data)
        inner: dict[str, Any] = read.get("detail", read)
        return inner

    def _take(self, route: str, pairs: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
        with self._lock:
            self.sizes.append((route, len(pairs)))
            answers: list[dict[str, Any]] = []
            for key, detail in pairs:
                refused = self._rng.random() < self._chance
                answers.append({"ErrorCode": "InternalFailure"} if refused else {"EventId": "1"})
                if not refused:
                    self.taken.append((route, key, detail["id"]))
                    self.sent_at.append(detail.get("sent_at", ""))
            return answers


def sending(number: int, key: str, route: Any = "bus", expected: Any = None) -> OutgoingRecord:
    detail: Any = {"id": str(number)}
    if route == "stream":
        detail = json.dumps(detail).encode()
    return OutgoingRecord(
        route, "probe", key, detail, expected, time=START + timedelta(hours=number), sent="sent_at"
    )


plans = st.lists(
    st.tuples(
        st.sampled_from("abcdefg"),
        st.sampled_from(["bus", "bus", "stream"]),
        st.sampled_from([None, REPEATED, Code.RULE_BROKEN]),
    ),
    max_size=120,
).map(lambda rows: [sending(number, *row) for number, row in enumerate(rows)])


def send(plan: Any, aws: Aws, **options: Any) -> Sent:
    clock = Clock()
    clocks = Clocks(clock, clock.now, Random(1), lambda: "id", clock.pause)
    return published(plan, aws, **{"clocks": clocks, "retry": Policy(attempts=200), **options})


def published(plan: Iterable[OutgoingRecord], aws: Any, **options: Any) -> Sent:
    return publish(plan, Destination(aws, aws, "bus", "stream"), PublishOptions(**options))


@given(plan=plans, chance=st.floats(0, 0.5), threads=st.integers(1, 4), seed=st.integers(0, 99))
@few
def test_every_record_is_accepted_once_in_order_per_device(
    plan: list[OutgoingRecord], chance: float, threads: int, seed: int
) -> None:
    aws = Aws(chance, seed)
    sent = send(plan, aws, threads=threads)
    assert len(aws.taken) == len(plan)
    for key in "abcdefg":
        numbers = [int(number) for _, k, number in aws.taken if k == key]
        assert numbers == [at for at, planned in enumerate(plan) if planned.key == key]
    assert sent.by_route == Counter(planned.route for planned in plan)
    assert sent.expected == Counter(planned.expected for planned in plan)
    assert (sent.sent, sent.unsent, sent.stopped) == (len(plan), 0, False)
    assert sent.repeated == sum(planned.expected == REPEATED for planned in plan)
    assert sent.again == sum(size for _, size in aws.sizes) - len(plan)
    assert all(size <= 10 for route, size in aws.sizes if route == "bus")


@given(plan=plans, chance=st.floats(0, 0.5), threads=st.integers(1, 3))
@few
def test_via_stream_all_records_go_to_the_stream(
    plan: list[OutgoingRecord], chance: float, threads: int
) -> None:
    aws = Aws(chance)
    sent = send(plan, aws, threads=threads, via="stream")
    assert {route for route, _, _ in aws.taken} <= {"stream"}
    assert Counter(number for _, _, number in aws.taken) == Counter(str(n) for n in range(len(plan)))
    assert sent.by_route == ({"stream": len(plan)} if plan else {})


def test_bulk_loads_use_full_requests() -> None:
    aws = Aws()
    send((sending(n, "a") for n in range(2_000)), aws, via="stream")
    assert aws.sizes == [("stream", 500)] * 4
    assert [int(number) for _, _, number in aws.taken] == list(range(2_000))


def test_the_rate_is_not_exceeded() -> None:
    aws = Aws()
    sent = send((sending(n, "abc"[n % 3]) for n in range(501)), aws, rate=50.0)
    assert sent.seconds == pytest.approx(10.0, abs=0.01)
    assert sent.per_second == pytest.approx(50, rel=0.01)


def test_the_speed_limits_data_time() -> None:
    sent = send((sending(n, "a") for n in range(11)), Aws(), speed=3600.0)  # an hour per second
    assert sent.seconds == pytest.approx(10.0, abs=0.01)


def test_an_invalid_pace_is_rejected_before_sending() -> None:
    aws = Aws()
    with pytest.raises(ConfigError):
        send([sending(0, "a")], aws, rate=0)
    assert not aws.taken


class Held(Aws):
    """Records the time at which each record was accepted."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock, self.moments = clock, list[str]()

    def put_events(self, Entries: list[dict[str, Any]]) -> dict[str, Any]:
        self.moments += [self.clock.now().isoformat()] * len(Entries)
        self.clock.pause(1.0)
        return super().put_events(Entries)


def test_the_sent_field_has_the_time_of_sending() -> None:
    clock = Clock()
    aws = Held(clock)
    clocks = Clocks(clock, clock.now, Random(1), lambda: "id", clock.pause)
    # Both records are of one device, so each has its own request and the second is sent a second later.
    published([sending(n, "a") for n in range(3)], aws, clocks=clocks, threads=1)
    assert [datetime.fromisoformat(at) for at in aws.sent_at] == [
        datetime.fromisoformat(at) for at in aws.moments
    ]
    assert len(set(aws.sent_at)) == 3


def test_progress_increases_to_the_total() -> None:
    seen: list[int] = []
    sent = send([sending(n, "abcde"[n % 5]) for n in range(99)], Aws(0.2), progress=seen.append, threads=3)
    assert seen == sorted(set(seen))
    assert seen[-1] == sent.sent == 99
    assert len(seen) > 1


def endless(stop: threading.Event | None = None, after: int = 0) -> Iterator[OutgoingRecord]:
    for number in itertools.count():
        if stop is not None and number == after:
            stop.set()
        yield sending(number, "abcde"[number % 5])


def test_a_stop_ends_an_endless_plan_with_correct_counts() -> None:
    stop, aws = threading.Event(), Aws()
    sent = send(endless(stop, 100), aws, stop=stop)
    assert sent.stopped
    assert sent.sent == len(aws.taken)
    assert sent.sent + sent.unsent == 100


def test_a_stop_before_the_start_sends_nothing() -> None:
    stop, aws = threading.Event(), Aws()
    stop.set()
    assert send(endless(), aws, stop=stop).sent == 0
    assert not aws.taken


def test_a_stop_ends_the_retries() -> None:
    stop, aws = threading.Event(), Aws(chance=1.0)
    clock = Clock()
    clocks = Clocks(clock, clock.now, Random(1), lambda: "id", lambda _: stop.set())
    sent = published(endless(), aws, clocks=clocks, stop=stop, retry=Policy(attempts=10**9))
    assert sent.stopped
    assert sent.sent == 0
    assert sent.unsent > 0


def test_an_undeliverable_record_ends_the_plan_and_is_named() -> None:
    with pytest.raises(
        FatalError, match=r"probe of . \(\d+\) was rejected by bus bus in 3 attempts: Internal"
    ):
        send(endless(), Aws(chance=1.0), retry=Policy(attempts=3))


def test_a_failing_plan_stops_all_sender_threads() -> None:
    def broken() -> Iterator[OutgoingRecord]:
        yield sending(0, "a")
        raise ConfigError([])

    with pytest.raises(ConfigError):
        send(broken(), Aws())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sender")]


@pytest.mark.parametrize("via", ["bus", "stream"])
def test_unsendable_records_are_skipped_and_reported_with_their_rows(via: Via) -> None:
    keys = {3: "", 5: "x" * 257, 7: "\ud800", 9: "", 11: "x" * 256, 13: "größe"}
    sendings = [
        OutgoingRecord("bus", "reading", keys.get(row, f"k{row}"), {"id": str(row)}, row=row)
        for row in range(1, 41)
    ]
    aws = Aws()
    sent = published(sendings, aws, via=via)
    assert sorted(int(id) for _, _, id in aws.taken) == sorted(set(range(1, 41)) - {3, 5, 7, 9})
    assert (sent.sent, sent.unsent, sent.stopped) == (36, 0, False)
    assert {why: (group.count, group.rows) for why, group in sent.unsendable.items()} == {
        "the key is empty": (2, [3, 9]),
        "the key is longer than 256 characters": (1, [5]),
        "the key is not valid Unicode": (1, [7]),
    }
    table = io.StringIO()
    Console(file=table, width=120).print(as_table(sent))
    assert "not sent, the key is empty (rows 3, 9)" in table.getvalue()
    assert to_json(sent)["unsendable"]["the key is empty"] == {"count": 2, "rows": [3, 9]}


def test_only_the_first_unsendable_rows_are_named() -> None:
    sendings = [OutgoingRecord("bus", "reading", "", {"id": str(row)}, row=row) for row in range(1, 101)]
    sent = published(sendings, Aws())
    (rejected,) = sent.unsendable.values()
    assert (rejected.count, rejected.rows) == (100, list(range(1, 21)))
    assert format_rows(rejected.rows, rejected.count).endswith("20 and more")
