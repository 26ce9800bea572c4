"""Requests stay within the limits and in order; every record is accepted once, or an error names it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.aws.request_sizes import BUS_BYTES, STREAM_BYTES, Refusal, put_events_size
from stream_app.aws.retry import Policy
from stream_app.errors import FatalError
from stream_app.ingest.delivery import Entry, Sender, bus_sender, deliver, requests, stream_sender
from stream_app.ingest.envelope import OutgoingRecord, Route

NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = Policy(attempts=4, base_ms=100, cap_ms=250)
THROTTLED = Refusal("ThrottlingException", "slow down")
lenient = settings(deadline=None, max_examples=60)

sendings = st.lists(
    st.builds(
        lambda route, key, size: OutgoingRecord(route, "probe", key, b"." * size),
        st.sampled_from(["bus", "stream"]),
        st.sampled_from("abcd"),
        st.integers(0, 40),
    ),
    max_size=60,
)


def sender(
    route: Route = "bus",
    put: Callable[[list[Any]], Sequence[Refusal | None]] = lambda bodies: [None] * len(bodies),
) -> Sender:
    """Return a sender that accepts five entries and 100 bytes per request."""

    def build(sending: OutgoingRecord, now: datetime) -> Entry:
        return Entry(sending, {"sending": sending}, len(sending.detail))

    return Sender(route, f"the {route}", 5, 100, build, put)


def cut(records: list[OutgoingRecord], *, ordered: bool = True) -> list[tuple[Sender, list[Entry]]]:
    senders = {"bus": sender("bus"), "stream": sender("stream")}
    return list(requests(records, lambda sending: senders[sending.route], lambda: NOW, ordered=ordered))


@given(records=sendings, ordered=st.booleans())
@lenient
def test_requests_contain_all_records_in_order_within_the_limits(
    records: list[OutgoingRecord], ordered: bool
) -> None:
    found = cut(records, ordered=ordered)
    assert [entry.record for _, entries in found for entry in entries] == records
    for through, entries in found:
        assert 1 <= len(entries) <= through.entries
        assert sum(entry.size for entry in entries) <= through.size
        assert {entry.record.route for entry in entries} == {through.route}


@given(records=sendings)
@lenient
def test_ordered_requests_contain_a_device_at_most_once(records: list[OutgoingRecord]) -> None:
    for _, entries in cut(records):
        keys = [entry.record.key for entry in entries]
        assert len(set(keys)) == len(keys)


@given(records=sendings)
@lenient
def test_requests_are_as_full_as_possible(records: list[OutgoingRecord]) -> None:
    for (through, entries), (next_sender, following) in itertools.pairwise(cut(records, ordered=False)):
        full = len(entries) == through.entries
        heavy = sum(entry.size for entry in entries) + following[0].size > through.size
        assert full or heavy or next_sender is not through


def test_an_entry_is_built_when_its_request_is_due() -> None:
    clock = [NOW]
    stamps: list[list[datetime]] = []

    def build(sending: OutgoingRecord, now: datetime) -> Entry:
        return Entry(sending, {"now": now}, 60)

    through = Sender("bus", "the bus", 5, 100, build, sender().put)
    several = [OutgoingRecord("bus", "probe", key, b"") for key in "abc"]
    for _, entries in requests(several, lambda _: through, lambda: clock[0], ordered=True):
        stamps.append([entry.body["now"] for entry in entries])
        clock[0] += timedelta(seconds=1)  # The request takes a second.
    assert stamps == [[NOW + timedelta(seconds=n)] for n in range(3)]


def test_an_oversized_record_is_reported() -> None:
    with pytest.raises(FatalError, match=r"probe of a has 101 bytes, but the bus accepts 100"):
        cut([OutgoingRecord("bus", "probe", "a", b"." * 101)])


class Service:
    """Rejects entries at random; `log` contains the accepted ones in order."""

    def __init__(self, chance: float, seed: int) -> None:
        self.log: list[OutgoingRecord] = []
        self.asked: list[list[OutgoingRecord]] = []
        self._chance, self._rng = chance, Random(seed)

    def put(self, bodies: list[Any]) -> list[Refusal | None]:
        self.asked.append([body["sending"] for body in bodies])
        answers = [THROTTLED if self._rng.random() < self._chance else None for _ in bodies]
        self.log += [body["sending"] for body, why in zip(bodies, answers, strict=True) if why is None]
        return answers


@given(records=sendings, chance=st.floats(0, 0.6), seed=st.integers(0, 999))
@lenient
def test_every_entry_is_accepted_once_in_order_per_device(
    records: list[OutgoingRecord], chance: float, seed: int
) -> None:
    numbered = [s._replace(route="bus", detail=bytes([at])) for at, s in enumerate(records)]
    service = Service(chance, seed)
    patient = Policy(attempts=1_000)
    for through, entries in requests(numbered, lambda _: sender(put=service.put), lambda: NOW, ordered=True):
        left, _ = deliver(through, entries, patient, lambda _: None, Random(seed), lambda: False)
        assert not left
    assert sorted(service.log) == sorted(numbered)
    for key in "abcd":
        assert [s for s in service.log if s.key == key] == [s for s in numbered if s.key == key]


def attempt(put: Callable[[list[Any]], Sequence[Refusal | None]], **options: Any) -> tuple[list[Entry], int]:
    entries = cut([OutgoingRecord("bus", "probe", key, {"id": f"{key}/1"}) for key in "abc"])[0][1]
    settings = {"pause": lambda _: None, "rng": Random(1), "stopped": lambda: False, **options}
    return deliver(sender(put=put), entries, POLICY, **settings)


def test_only_rejected_entries_are_retried_in_order() -> None:
    answers: Iterator[list[Refusal | None]] = iter([[None, THROTTLED, THROTTLED], [THROTTLED, None], [None]])
    asked: list[list[str]] = []

    def put(bodies: list[Any]) -> Sequence[Refusal | None]:
        asked.append([body["sending"].key for body in bodies])
        return next(answers)

    assert attempt(put) == ([], 3)
    assert asked == [["a", "b", "c"], ["b", "c"], ["b"]]


def test_backoff_is_full_jitter_with_a_cap() -> None:
    class Highest(Random):
        def uniform(self, a: float, b: float) -> float:
            assert a == 0
            return b

    waits: list[float] = []
    with pytest.raises(FatalError):
        attempt(lambda bodies: [THROTTLED] * len(bodies), pause=waits.append, rng=Highest())
    assert waits == [0.1, 0.2, 0.25]


def test_exhausted_retries_name_the_entry() -> None:
    asked = []

    def put(bodies: list[Any]) -> Sequence[Refusal | None]:
        asked.append(len(bodies))
        return [None, THROTTLED, None] if len(bodies) == 3 else [THROTTLED]

    with pytest.raises(
        FatalError, match=r"probe of b \(b/1\) was rejected by the bus in 4 attempts: Throttling"
    ):
        attempt(put)
    assert asked == [3, 1, 1, 1]


def test_permanent_errors_are_not_retried() -> None:
    calls = []

    def put(bodies: list[Any]) -> Sequence[Refusal | None]:
        calls.append(1)
        return [None, None, Refusal("MalformedDetail", "no JSON")]

    with pytest.raises(FatalError, match=r"probe of c \(c/1\).*1 attempts: MalformedDetail, no JSON"):
        attempt(put)
    assert len(calls) == 1


def client_error(code: str, status: int = 400) -> ClientError:
    response: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "PutEvents")


@pytest.mark.parametrize(
    "error",
    [
        client_error("ThrottlingException"),
        client_error("InternalException", 500),
        EndpointConnectionError(endpoint_url="http://x"),
    ],
)
def test_a_transient_error_retries_the_whole_request(error: Exception) -> None:
    asked = []

    def put(bodies: list[Any]) -> Sequence[Refusal | None]:
        asked.append(len(bodies))
        if len(asked) == 1:
            raise error
        return [None] * len(bodies)

    assert attempt(put) == ([], 3)
    assert asked == [3, 3]


def test_any_other_error_is_fatal() -> None:
    def put(bodies: list[Any]) -> Sequence[Refusal | None]:
        raise client_error("ResourceNotFoundException")

    with pytest.raises(
        FatalError, match=r"3 entries, the first is probe of a \(a/1\): ResourceNotFoundException"
    ):
        attempt(put)


def test_a_stop_returns_the_remaining_entries() -> None:
    left, again = attempt(lambda bodies: [None, THROTTLED, None], stopped=lambda: True)
    assert [entry.record.key for entry in left] == ["b"]
    assert again == 0


class Client:
    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer, self.asked = answer, dict[str, Any]()

    def put_events(self, **asked: Any) -> dict[str, Any]:
        self.asked = asked
        return self.answer

    put_records = put_events


def test_put_events_requests_have_the_documented_form() -> None:
    client: Any = Client(
        {"FailedEntryCount": 1, "Entries": [{"EventId": "1"}, {"ErrorCode": "X", "ErrorMessage": "y"}]}
    )
    through = bus_sender(client, "devices")
    entry = through.build(OutgoingRecord("bus", "probe", "a", {"id": "1"}, sent="sent_at"), NOW)
    assert entry.size == put_events_size(entry.body)
    assert entry.body["Detail"] == '{"id":"1","sent_at":"2026-01-01T00:00:00Z"}'
    assert list(through.put([entry.body, entry.body])) == [None, Refusal("X", "y")]
    assert client.asked == {"Entries": [entry.body, entry.body]}
    assert (through.entries, through.size) == (10, BUS_BYTES)
    assert BUS_BYTES < 256 * 1024
    with pytest.raises(FatalError, match="JSON only"):
        through.build(OutgoingRecord("bus", "probe", "a", b"bytes"), NOW)


def test_put_records_requests_have_the_documented_form() -> None:
    client: Any = Client(
        {"FailedRecordCount": 1, "Records": [{"ErrorCode": "InternalFailure"}, {"ShardId": "0"}]}
    )
    through = stream_sender(client, "s", {"shout": lambda e, d: e.upper().encode()}, "r", "0", lambda: "id")
    raw = through.build(OutgoingRecord("stream", "probe", "ä", b"\xff"), NOW)
    shout = through.build(OutgoingRecord("stream", "probe", "a", {}, encoding="shout"), NOW)
    enveloped = through.build(OutgoingRecord("bus", "probe", "a", {"n": 1}), NOW)
    assert raw.body == {"Data": b"\xff", "PartitionKey": "ä"}
    assert raw.size == 3
    assert shout.body["Data"] == b"PROBE"
    assert b'"detail-type":"probe"' in enveloped.body["Data"]
    assert list(through.put([raw.body, shout.body])) == [Refusal("InternalFailure", ""), None]
    assert client.asked == {"StreamName": "s", "Records": [raw.body, shout.body]}
    assert (through.entries, through.size) == (500, STREAM_BYTES)
