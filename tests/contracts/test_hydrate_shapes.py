"""Every shape in which a dead letter comes leads to the same failures, and to one record of the letter."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from stream_app.errors import TransientError
from stream_app.recovery.dead_letters import DeadLetter
from stream_app.recovery.hydrate.batch import hydrate_batch
from stream_app.recovery.hydrate.results import State
from tests.contracts.hydrating import (
    ALL_DONE,
    BUCKET,
    Meddled,
    again,
    by_sns,
    dependencies,
    event,
    everything,
    failures,
    invocation,
    of_function,
    of_pipe,
    own,
    put_all,
    records,
    tag,
)

PAYLOADS = [b'{"pm25":1}', b"\x00\xff\x00", b"", b"not json", b' {"pm25":2} ']
CARRIED = "aws/lambda/8e6f1c2d-0000-4000-8000-000000000000/shardId-000000000000/2016/12/01/a b+c"


@pytest.fixture
def dead_letters(kinesis: Any) -> list[DeadLetter]:
    """Where five records lie, amid others of their shard."""
    return put_all(kinesis, [b"before", *PAYLOADS, b"after"])[1:-1]


def stored(s3: Any, consumer: str) -> list[bytes | None]:
    return [one.data for one in failures(s3, consumer)]


WHOLE = [data.strip() for data in PAYLOADS]


@pytest.mark.parametrize("wrap", [str, by_sns], ids=["sqs", "sns"])
def test_our_own(kinesis: Any, s3: Any, dead_letters: list[DeadLetter], wrap: Callable[[str], str]) -> None:
    answer, done = hydrate_batch(event(*(wrap(own(one)) for one in dead_letters)), dependencies(kinesis, s3))
    assert answer == ALL_DONE
    assert stored(s3, "air") == WHOLE
    assert {(one.stage, one.code, one.reason) for one in failures(s3)} == {
        ("verify", "RULE_BROKEN", "pm25 is not negative")
    }
    assert [result.state for result in done.results] == [State.HYDRATED] * 5
    assert not records(s3, "air"), "its failure holds it; a second object would say nothing more"


@pytest.mark.parametrize("wrap", [str, by_sns], ids=["sqs", "sns"])
@pytest.mark.parametrize(
    ("sent", "consumer", "source", "reason"),
    [
        (of_pipe, "air-delivery", "pipe", "RetryAttemptsExhausted in pipe air-delivery"),
        (
            of_function,
            "air-map",
            "lambda",
            "RetryAttemptsExhausted in function air-map after 3 calls: Unhandled",
        ),
    ],
    ids=["pipe", "function"],
)
def test_a_range(
    kinesis: Any,
    s3: Any,
    dead_letters: list[DeadLetter],
    wrap: Callable[[str], str],
    sent: Callable[[list[DeadLetter]], dict[str, Any]],
    consumer: str,
    source: str,
    reason: str,
) -> None:
    body = sent(dead_letters)
    answer, _ = hydrate_batch(event(wrap(json.dumps(body))), dependencies(kinesis, s3))
    assert answer == ALL_DONE
    found = failures(s3, consumer)
    assert [one.data for one in found] == WHOLE
    assert {(one.stage, one.code, one.reason) for one in found} == {("delivery", "DELIVERY_FAILED", reason)}
    assert [(one.shard, one.sequence, one.partition_key) for one in found] == [
        (one.shard, one.sequence, "Dongsi") for one in dead_letters
    ]
    [record] = records(s3, consumer)
    assert {one.origin for one in found} == set(everything(s3, "dead-letters/"))
    assert (record.state, record.source, record.size, record.found) == ("hydrated", source, 5, 5)
    assert (record.first, record.last) == (dead_letters[0].sequence, dead_letters[-1].sequence)
    assert json.loads(bytes(record.message)) == body, "the metadata is kept as it came"
    assert tag(s3, found[0].origin or "") == "hydrated"


def carried(s3: Any, dead_letters: list[DeadLetter], payload: Any, size: int = 5) -> None:
    body = {**of_function(dead_letters, size), "payload": payload}
    s3.put_object(Bucket=BUCKET, Key=CARRIED, Body=json.dumps(body).encode())


def notice() -> dict[str, Any]:
    """S3's own notification: the key is URL-encoded."""
    return {
        "Records": [
            {
                "eventVersion": "2.1",
                "eventSource": "aws:s3",
                "eventName": "ObjectCreated:Put",
                "s3": {
                    "s3SchemaVersion": "1.0",
                    "bucket": {"name": BUCKET, "arn": f"arn:aws:s3:::{BUCKET}"},
                    "object": {"key": CARRIED.replace("+", "%2B").replace(" ", "+"), "size": 1},
                },
            }
        ]
    }


def created() -> dict[str, Any]:
    """The same by EventBridge: the key is as it is."""
    return {
        "version": "0",
        "id": "e",
        "detail-type": "Object Created",
        "source": "aws.s3",
        "detail": {"bucket": {"name": BUCKET}, "object": {"key": CARRIED, "size": 1}},
    }


EVENTS: dict[str, Callable[[], dict[str, Any]]] = {
    "sqs": lambda: event(notice()),
    "sqs by sns": lambda: event(by_sns(json.dumps(notice()))),
    "sqs by eventbridge": lambda: event(created()),
    "s3 itself": notice,
    "eventbridge itself": created,
    "sns itself": lambda: {
        "Records": [
            {
                "EventSource": "aws:sns",
                "Sns": {"MessageId": "m", "TopicArn": "t", "Message": json.dumps(notice())},
            }
        ]
    },
}


@pytest.mark.parametrize("made", EVENTS.values(), ids=EVENTS.keys())
@pytest.mark.parametrize("escaped", [True, False])
def test_the_whole_invocation_on_s3_needs_no_stream(
    kinesis: Any,
    s3: Any,
    dead_letters: list[DeadLetter],
    made: Callable[[], dict[str, Any]],
    escaped: bool,
) -> None:
    whole = invocation(dead_letters, PAYLOADS)
    carried(s3, dead_letters, json.dumps(whole) if escaped else whole)
    meddled = Meddled(kinesis, {dead_letters[0].shard: "ResourceNotFoundException"})
    assert hydrate_batch(made(), dependencies(meddled, s3))[0] == ALL_DONE
    assert meddled.calls in (["describe_stream_summary"], [])
    assert stored(s3, "air-map") == WHOLE
    [record] = records(s3, "air-map")
    assert (record.state, record.found) == ("hydrated", 5)
    assert "payload" not in json.loads(bytes(record.message))


@pytest.mark.parametrize(
    "payload", [None, "{", {"Records": "none"}, {"Records": [{"kinesis": {"data": "?"}}]}, 7]
)
def test_a_payload_that_cannot_be_read_is_had_from_the_stream(
    kinesis: Any, s3: Any, dead_letters: list[DeadLetter], payload: Any
) -> None:
    carried(s3, dead_letters, payload)
    assert hydrate_batch(event(notice()), dependencies(kinesis, s3))[0] == ALL_DONE
    assert stored(s3, "air-map") == WHOLE


def test_a_payload_that_is_not_all_is_completed_from_the_stream(
    kinesis: Any, s3: Any, dead_letters: list[DeadLetter]
) -> None:
    carried(s3, dead_letters, invocation(dead_letters[:3], PAYLOADS[:3]))
    assert hydrate_batch(event(notice()), dependencies(kinesis, s3))[0] == ALL_DONE
    assert stored(s3, "air-map") == WHOLE


def test_a_payload_that_is_not_all_is_better_than_nothing(
    kinesis: Any, s3: Any, dead_letters: list[DeadLetter]
) -> None:
    carried(s3, dead_letters, invocation(dead_letters[:3], PAYLOADS[:3]))
    gone = Meddled(kinesis, {dead_letters[0].shard: "ResourceNotFoundException"})
    assert hydrate_batch(event(notice()), dependencies(gone, s3))[0] == ALL_DONE
    assert stored(s3, "air-map") == WHOLE[:3]
    [record] = records(s3, "air-map")
    assert (record.state, record.found, record.size) == ("partial", 3, 5)


def test_an_object_that_is_not_there_yet_comes_again(kinesis: Any, s3: Any) -> None:
    answer, done = hydrate_batch(event(notice()), dependencies(kinesis, s3))
    assert answer == again(0)
    assert CARRIED in done.failed[0]


def test_what_only_the_whole_event_can_bring_again_raises(kinesis: Any, s3: Any) -> None:
    with pytest.raises(TransientError, match="1 of 1"):
        hydrate_batch(notice(), dependencies(kinesis, s3))


def test_the_test_of_a_notification_is_no_dead_letter(kinesis: Any, s3: Any) -> None:
    test = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": BUCKET, "RequestId": "r"}
    answer, done = hydrate_batch(event(test), dependencies(kinesis, s3))
    assert answer == ALL_DONE
    assert not done.results
    assert not done.malformed


def test_an_event_of_another_source_is_refused(kinesis: Any, s3: Any) -> None:
    for wrong in ({}, {"Records": [{"eventSource": "aws:kinesis"}]}, {"source": "aws.ec2"}):
        with pytest.raises(ValueError, match="event"):
            hydrate_batch(wrong, dependencies(kinesis, s3))


def test_a_batch_that_grew_too_old_before_any_call_has_no_response(
    kinesis: Any, s3: Any, dead_letters: list[DeadLetter]
) -> None:
    body = of_function(dead_letters)
    del body["responseContext"]
    body["requestContext"] = {"functionArn": f"{body['requestContext']['functionArn']}:live",
                              "condition": "RecordAgeExceeded"}  # fmt: skip
    assert hydrate_batch(event(body), dependencies(kinesis, s3))[0] == ALL_DONE
    assert {one.reason for one in failures(s3, "air-map")} == {"RecordAgeExceeded in function air-map"}


def test_shapes_may_be_mixed_in_one_event(kinesis: Any, s3: Any, dead_letters: list[DeadLetter]) -> None:
    carried(s3, dead_letters[3:], invocation(dead_letters[3:], PAYLOADS[3:]), size=2)
    other = msgspec.structs.replace(dead_letters[4], consumer="other")
    bodies: list[str | dict[str, Any]] = [
        own(dead_letters[0]),
        of_pipe(dead_letters[:2]),
        notice(),
        own(other),
    ]
    assert hydrate_batch(event(*bodies), dependencies(kinesis, s3))[0] == ALL_DONE
    assert stored(s3, "air") == WHOLE[:1]
    assert stored(s3, "air-delivery") == WHOLE[:2]
    assert stored(s3, "air-map") == WHOLE[3:]
    assert stored(s3, "other") == WHOLE[4:]
