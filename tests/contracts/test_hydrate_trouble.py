"""What gets in the way of hydrate costs time, never a record: throttling, repeats, nonsense, outages, the clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from stream_app import lambdas
from stream_app.recovery.hydrate.batch import Hydrated, HydrateDependencies, handler, hydrate_batch
from stream_app.recovery.hydrate.report import LEFT
from stream_app.recovery.hydrate.results import State, waiting
from stream_app.recovery.stream.retention import Retention
from tests.contracts.hydrating import (
    ALL_DONE,
    ARN,
    BUCKET,
    STREAM,
    Meddled,
    again,
    dependencies,
    event,
    everything,
    failures,
    of_pipe,
    own,
    put,
    put_all,
    records,
    refusal,
)

HOUR = 3_600_000
ARRIVED = 1_480_550_400_123  # when the letters of these tests say that their records came


@pytest.fixture
def sqs(aws: Callable[[str], Any]) -> Any:
    return aws("sqs")


@pytest.fixture
def parking(sqs: Any) -> str:
    return str(sqs.create_queue(QueueName="parking")["QueueUrl"])


def test_a_throttled_read_is_waited_out_in_place(kinesis: Any, s3: Any) -> None:
    dead_letters = put_all(kinesis, [b"%d" % at for at in range(10)])
    pauses: list[float] = []
    throttled = Meddled(kinesis, throttled=3)
    bodies: list[Any] = [own(dead_letters[0]), of_pipe(dead_letters)]
    here = dependencies(throttled, s3, page=2, sleep=pauses.append)
    assert hydrate_batch(event(*bodies), here)[0] == ALL_DONE
    assert len(failures(s3, "air-delivery")) == 10
    assert len(pauses) == 3 * (throttled.calls.count("get_records") // 4)
    assert throttled.calls.count("get_shard_iterator") == 2, "reading goes on where it was throttled"


def test_throttling_that_does_not_end_makes_the_letter_wait(kinesis: Any, s3: Any) -> None:
    dead_letters = put_all(kinesis, [b"1", b"2"])
    throttled = Meddled(kinesis, throttled=1_000)
    answer, done = hydrate_batch(
        event(own(dead_letters[0]), of_pipe(dead_letters)), dependencies(throttled, s3)
    )
    assert answer == again(0, 1)
    assert all("6 attempts" in reason for reason in done.failed.values())


@pytest.mark.parametrize("threads", [False, True])
def test_a_duplicate_delivery_changes_nothing(kinesis: Any, s3: Any, threads: bool) -> None:
    dead_letters = put_all(kinesis, [b"%d" % at for at in range(6)])
    bodies: list[Any] = [
        *(own(one) for one in dead_letters),
        of_pipe(dead_letters[:3]),
        own(dead_letters[0]),
        of_pipe(dead_letters[:3]),
    ]
    with ThreadPoolExecutor(4) as pool:
        here = dependencies(kinesis, s3, threads=pool if threads else None)
        assert hydrate_batch(event(*bodies), here)[0] == ALL_DONE
        before = everything(s3)
        answer, done = hydrate_batch(event(*bodies[::-1]), here)
    assert answer == ALL_DONE
    assert (done.written, len(done.kept)) == ([], 7 + 2 * 3)
    assert everything(s3) == before
    assert len(failures(s3)) == 6


def test_a_crash_between_failures_and_record_is_made_good(kinesis: Any, s3: Any) -> None:
    class Dying:
        """An S3 that takes three objects, and then nothing."""

        def __init__(self) -> None:
            self.left = 3

        def __getattr__(self, name: str) -> Any:
            method = getattr(s3, name)

            def call(**request: Any) -> Any:
                if name == "put_object":
                    self.left -= 1
                    if self.left < 0:
                        raise refusal("AccessDenied", "PutObject")
                return method(**request)

            return call

    dead_letters = put_all(kinesis, [b"%d" % at for at in range(6)])
    body = of_pipe(dead_letters)
    assert hydrate_batch(event(body), dependencies(kinesis, Dying()))[0] == again(0)
    assert (len(failures(s3, "air-delivery")), records(s3, "air-delivery")) == (3, [])
    assert hydrate_batch(event(body, received=2), dependencies(kinesis, s3))[0] == ALL_DONE
    assert len(failures(s3, "air-delivery")) == 6
    assert [one.state for one in records(s3, "air-delivery")] == ["hydrated"]


MALFORMED = [
    "no json",
    "\u0001".encode("unicode_escape").decode(),
    "[]",
    "null",
    "{}",
    '{"kind":"stream-app.dead-letter","version":1}',
    json.dumps({"KinesisBatchInfo": None, "DDBStreamBatchInfo": {}, "requestContext": {}}),
    json.dumps({"Type": "Notification", "Message": "no json"}),
    json.dumps({"Records": [{"s3": {}}]}),
    json.dumps({"Records": 1}),
    "[" * 50_000,
]


def received(sqs: Any, queue: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while more := sqs.receive_message(
        QueueUrl=queue, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
    ).get("Messages"):
        found += more
    return found


def test_a_malformed_message_is_parked_as_it_is_with_the_reason(
    kinesis: Any, s3: Any, sqs: Any, parking: str
) -> None:
    good = own(put(kinesis, b"1"))
    here = dependencies(kinesis, s3, sqs=sqs, parking=parking)
    answer, done = hydrate_batch(event(*MALFORMED, good), here)
    assert answer == ALL_DONE
    parked = received(sqs, parking)
    assert sorted(one["Body"] for one in parked) == sorted(MALFORMED)
    assert all(one["MessageAttributes"]["reason"]["StringValue"] for one in parked)
    assert {one["MessageAttributes"]["origin"]["StringValue"] for one in parked} == {
        "arn:aws:sqs:us-east-1:123456789012:air-dead-letters"
    }
    assert len(done.malformed) == len(MALFORMED)
    assert len(failures(s3)) == 1


def test_what_cannot_be_parked_comes_again_and_ends_by_the_redrive_policy(
    kinesis: Any, s3: Any, sqs: Any
) -> None:
    here = dependencies(kinesis, s3, sqs=sqs, parking="http://127.0.0.1/no/queue")
    assert hydrate_batch(event("no json", "{}"), here)[0] == again(0, 1)
    assert hydrate_batch(event("no json", "{}"), dependencies(kinesis, s3))[0] == again(0, 1)


def test_a_letter_that_waits_shows_when_its_payload_vanishes(kinesis: Any, s3: Any) -> None:
    kinesis.increase_stream_retention_period(StreamName=STREAM, RetentionPeriodHours=48)
    dead_letters = [put(kinesis, b"1"), put(kinesis, b"2", "Tiantan")]
    failing = dict.fromkeys({one.shard for one in dead_letters}, "AccessDeniedException")
    bodies: list[Any] = [own(dead_letters[0]), json.dumps(of_pipe(dead_letters[:1]))]
    assert hydrate_batch(event(*bodies), dependencies(Meddled(kinesis, failing), s3))[0] == again(0, 1)
    for consumer, body in zip(("air", "air-delivery"), map(json.loads, bodies), strict=True):
        [waits] = waiting(s3, BUCKET, consumer)
        assert (waits.state, waits.deadline) == (State.WAITING, ARRIVED + 48 * HOUR)
        assert "AccessDenied" in waits.reason
        assert json.loads(bytes(waits.message)) == body
    assert hydrate_batch(event(*bodies, received=2), dependencies(kinesis, s3))[0] == ALL_DONE
    assert not [*waiting(s3, BUCKET, "air"), *waiting(s3, BUCKET, "air-delivery")]


def test_the_first_to_vanish_is_listed_first(kinesis: Any, s3: Any) -> None:
    real = put(kinesis, b"1")
    dead_letters = [
        msgspec.structs.replace(real, arrived=ARRIVED + hours * HOUR) for hours in (5, -3, 0, 100)
    ]
    failing = Meddled(kinesis, {real.shard: "AccessDeniedException"})
    hydrate_batch(event(*map(own, dead_letters)), dependencies(failing, s3))
    found = [one.arrived for one in waiting(s3, BUCKET, "air")]
    assert found == sorted(one.arrived for one in dead_letters)


def metrics(lines: list[str]) -> dict[str, dict[str, Any]]:
    """The metrics of each consumer, by name."""
    found = {}
    for line in lines:
        document = json.loads(line)
        [directive] = document["_aws"]["CloudWatchMetrics"]
        assert directive["Dimensions"] == [["Consumer"]]
        found[document["Consumer"]] = {one["Name"]: document[one["Name"]] for one in directive["Metrics"]}
    return found


def test_a_metric_carries_the_shortest_time_that_a_letter_had_left(kinesis: Any, s3: Any) -> None:
    real = put(kinesis, b"1")
    young = msgspec.structs.replace(real, arrived=ARRIVED + HOUR)
    lines: list[str] = []
    here = dependencies(kinesis, s3, emit=lines.append, now_ms=lambda: ARRIVED + 20 * HOUR, application="air")
    hydrate_batch(event(own(young), own(real), of_pipe([young]), "no json"), here)
    found = metrics(lines)
    assert found["air"] == {
        LEFT: 4 * 3600,
        "DeadLettersHydrated": 2,
        "DeadLettersPartial": 0,
        "DeadLettersExpired": 0,
        "DeadLettersWaiting": 0,
        "DeadLettersMalformed": 1,
    }
    assert found["air-delivery"][LEFT] == 5 * 3600
    assert "DeadLettersMalformed" not in found["air-delivery"]


def test_letters_that_wait_are_counted(kinesis: Any, s3: Any) -> None:
    one = put(kinesis, b"1")
    lines: list[str] = []
    failing = Meddled(kinesis, {one.shard: "AccessDeniedException"})
    hydrate_batch(event(own(one)), dependencies(failing, s3, emit=lines.append))
    assert metrics(lines)["air"]["DeadLettersWaiting"] == 1


def test_the_clock_asks_a_stream_once_in_a_while_and_never_raises(kinesis: Any) -> None:
    now = [ARRIVED]
    counting: Any = Meddled(kinesis)
    retention = Retention(counting, lambda: now[0])
    assert {retention.deadline(name, ARRIVED) for name in [STREAM] * 5} == {ARRIVED + 24 * HOUR}
    assert retention.seconds_left(STREAM, ARRIVED - HOUR) == 23 * 3600
    assert retention.seconds_left(STREAM, ARRIVED - 25 * HOUR) == -3600
    assert len(counting.calls) == 1
    kinesis.increase_stream_retention_period(StreamName=STREAM, RetentionPeriodHours=72)
    now[0] += HOUR
    assert retention.deadline(STREAM, ARRIVED) == ARRIVED + 72 * HOUR
    assert retention.deadline(ARN, ARRIVED) == ARRIVED + 72 * HOUR
    counting.calls.clear()
    assert [retention.deadline("nowhere", ARRIVED) for _ in range(5)] == [None] * 5
    assert retention.seconds_left("nowhere", ARRIVED) is None
    assert len(counting.calls) == 1


@dataclass
class Context:
    """What Lambda tells of the time that is left, call by call."""

    left: list[int]

    def get_remaining_time_in_millis(self) -> int:
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]


def test_what_there_is_no_time_for_comes_again_and_the_rest_is_done(kinesis: Any, s3: Any) -> None:
    dead_letters = put_all(kinesis, [b"1", b"2", b"3"])
    seen: list[Hydrated] = []
    handle = handler(dependencies(kinesis, s3), seen.append)
    bodies: list[Any] = [of_pipe([one]) for one in dead_letters]
    assert handle(event(*bodies), Context([60_000, 20_000, 1_000])) == again(2)
    assert "no time" in seen[0].failed[2]
    assert len(failures(s3, "air-delivery")) == 2
    assert handle(event(own(dead_letters[0])), Context([1_000])) == again(0)
    assert handle(event(own(dead_letters[0])), None) == ALL_DONE


def test_the_function_takes_its_world_from_the_environment(
    kinesis: Any, s3: Any, sqs: Any, parking: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("STREAM_APP_BUCKET", BUCKET)
    monkeypatch.setenv(lambdas.PARKING, parking)
    monkeypatch.setenv("STREAM_APP_APPLICATION", "air")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    caches = (lambdas._client, lambdas._settings, lambdas._trial_factory, lambdas._hydrate)
    for cached in caches:
        cached.cache_clear()
    dead_letters = put_all(kinesis, [b"1", b"2"])
    try:
        assert lambdas.hydrate(event(own(dead_letters[0]), of_pipe(dead_letters), "{}"), None) == ALL_DONE
    finally:
        for cached in caches:
            cached.cache_clear()
    assert len(failures(s3)) == 1
    assert {one.code for one in failures(s3, "air-delivery")} == {"UNDECODABLE"}, "judged by the pipeline"
    assert len(received(sqs, parking)) == 1
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {one["Consumer"] for one in said if "_aws" in one} == {"air", "air-delivery"}


def test_a_world_needs_three_things_only(kinesis: Any, s3: Any) -> None:
    assert handler(HydrateDependencies(kinesis, s3, BUCKET))(event(own(put(kinesis, b"1"))), None) == ALL_DONE
