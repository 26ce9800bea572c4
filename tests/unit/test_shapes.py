"""Any input is read as a dead letter or refused with a reason, and no other error is raised."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.model.record import Position
from stream_app.recovery.dead_letters import DeadLetter
from stream_app.recovery.hydrate.events import messages
from stream_app.recovery.hydrate.shapes import Pointer, Range, read
from tests.contracts.hydrating import by_sns, event, invocation, of_function, of_pipe, own
from tests.unit.test_recovery_store import POSITIONS, dead_letter

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
DEAD_LETTERS = POSITIONS.map(dead_letter)
ENDS = st.tuples(st.integers(0, 10**56), st.integers(0, 10**56)).map(sorted)
FIRST, LAST = (
    dead_letter(Position("shardId-000000000001", "100")),
    dead_letter(Position("shardId-000000000001", "200")),
)
MADE = {"pipe": of_pipe, "function": of_function}


@given(DEAD_LETTERS)
def test_a_dead_letter_of_this_application_is_read_unchanged(one: DeadLetter) -> None:
    assert read(own(one)) == read(by_sns(own(one))) == read(by_sns(by_sns(own(one)))) == one


@given(ENDS, st.integers(1, 10_000), st.sampled_from(list(MADE)))
def test_a_range_is_read_by_its_first_and_last_numbers(ends: list[int], size: int, source: str) -> None:
    first, last = (dead_letter(Position("shardId-000000000001", str(end))) for end in ends)
    body = MADE[source]([first, last], size)
    found = read(json.dumps(body))
    assert isinstance(found, Range)
    assert (found.first, found.last, found.size) == (first.sequence, last.sequence, size)
    assert (found.arrived, found.shard, found.stream) == (first.arrived, first.shard, "devices")
    assert found.arn == body["KinesisBatchInfo"]["streamArn"]
    assert json.loads(bytes(found.message)) == body
    assert read(by_sns(json.dumps(body))) == found


@given(
    st.sampled_from(list(MADE)),
    st.sampled_from([(), ("KinesisBatchInfo",), ("context",), ("requestContext",), ("responseContext",)]),
    st.text(max_size=8),
    JSON,
)
def test_a_modified_dead_letter_is_read_or_refused(
    source: str, path: tuple[str, ...], name: str, value: Any
) -> None:
    body = MADE[source]([FIRST, LAST])
    inside = body
    for step in path:
        inside = inside.setdefault(step, {})
    names = [*inside, name]
    for changed in names:
        before = inside.get(changed, None)
        inside[changed] = value
        _read_or_refused(json.dumps(body))
        inside[changed] = before


@given(JSON)
def test_any_json_is_read_or_refused(value: Any) -> None:
    _read_or_refused(json.dumps(value))


@given(st.text() | st.binary())
def test_any_text_is_read_or_refused(text: str | bytes) -> None:
    _read_or_refused(text)


def _read_or_refused(body: str | bytes) -> None:
    """Anything but a ValueError fails the test."""
    with suppress(ValueError):
        found = read(body)
        assert isinstance(found, DeadLetter | Range) or all(isinstance(one, Pointer) for one in found)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shardId", "shard/1"),
        ("shardId", ""),
        ("startSequenceNumber", "201"),
        ("startSequenceNumber", "SHARD_END"),
        ("endSequenceNumber", "９"),
        ("endSequenceNumber", "9" * 5_000),
        ("batchSize", 0),
        ("batchSize", "7"),
        ("approximateArrivalOfFirstRecord", "1969-12-31T23:59:59Z"),
        ("approximateArrivalOfFirstRecord", "2016-12-01T00:00:00"),
        ("approximateArrivalOfLastRecord", "soon"),
        ("streamArn", "arn:aws:dynamodb:us-east-1:123456789012:table/t/stream/s"),
        ("streamArn", "devices"),
    ],
)
@pytest.mark.parametrize("source", list(MADE))
def test_an_invalid_range_is_refused(source: str, name: str, value: Any) -> None:
    body = MADE[source]([FIRST, LAST])
    body["KinesisBatchInfo"][name] = value
    with pytest.raises(ValueError, match=r"."):
        read(json.dumps(body))


def test_an_invalid_sender_is_refused() -> None:
    for source, path in (
        ("pipe", ("context", "partnerResourceArn")),
        ("function", ("requestContext", "functionArn")),
    ):
        body = MADE[source]([FIRST, LAST])
        body[path[0]][path[1]] = "arn:aws:iam::123456789012:role/x"
        with pytest.raises(ValueError, match="not the ARN of a"):
            read(json.dumps(body))
    body = of_pipe([FIRST, LAST])
    del body["context"]
    with pytest.raises(ValueError, match="neither context nor"):
        read(json.dumps(body))


@pytest.mark.parametrize(
    ("arn", "stream", "kept"),
    [
        ("arn:aws:kinesis:us-east-1:123456789012:stream/a.b-c_1", "a.b-c_1", None),
        ("arn:aws-cn:kinesis:cn-north-1:1:stream/x", "x", None),
        (
            "arn:aws:kinesis:us-east-1:123456789012:stream/x/consumer/fan:1",
            "x",
            "arn:aws:kinesis:us-east-1:123456789012:stream/x",
        ),
    ],
)
def test_streams_are_identified_by_arn(arn: str, stream: str, kept: str | None) -> None:
    body = of_pipe([FIRST, LAST])
    body["KinesisBatchInfo"]["streamArn"] = arn
    found = read(json.dumps(body))
    assert isinstance(found, Range)
    assert (found.stream, found.arn) == (stream, kept or arn)


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=8), st.booleans(), st.randoms())
def test_included_payloads_are_in_order_and_byte_for_byte(
    payloads: list[bytes], escaped: bool, rng: Any
) -> None:
    dead_letters = [dead_letter(Position("shardId-1", str(100 + at))) for at in range(len(payloads))]
    payload = invocation(dead_letters, payloads)
    rng.shuffle(payload["Records"])
    body = {**of_function(dead_letters), "payload": json.dumps(payload) if escaped else payload}
    found = read(json.dumps(body))
    assert isinstance(found, Range)
    assert [record["Data"] for record in found.carried] == payloads
    assert [record["SequenceNumber"] for record in found.carried] == [one.sequence for one in dead_letters]
    assert all(
        round(record["ApproximateArrivalTimestamp"].timestamp() * 1000) == one.arrived
        for record, one in zip(found.carried, dead_letters, strict=True)
    )
    assert "payload" not in json.loads(bytes(found.message))


@given(st.text(min_size=1, max_size=60))
def test_url_encoded_keys_of_notifications_are_decoded(key: str) -> None:
    by_s3 = {
        "Records": [
            {"s3": {"bucket": {"name": "b"}, "object": {"key": quote_plus(key, errors="surrogatepass")}}}
        ]
    }
    by_bus = {"source": "aws.s3", "detail": {"bucket": {"name": "b"}, "object": {"key": key}}}
    assert read(json.dumps(by_s3)) == read(json.dumps(by_bus)) == (Pointer("b", key),)


def test_messages_have_their_receive_count() -> None:
    assert [message.again for message in messages(event("a", "b")).messages] == [False, False]
    assert [message.again for message in messages(event("a", received=2)).messages] == [True]
    assert messages({"Records": []}).messages == []
