"""Requests from the queue: early ones wait, invalid ones go to manual review, reads are rate-limited."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from stream_app.model.record import Position
from stream_app.recovery.correct.calculation.payload import MayRead
from stream_app.recovery.correct.history import History, count_corrections
from stream_app.recovery.correct.history_entry import Correction, Request
from stream_app.recovery.correct.limits import ReadLimiter
from stream_app.recovery.correct.queue import correct_batch, correct_dead_letters, manual_key, parse
from tests.contracts.correcting import (
    APPLICATION,
    BUCKET,
    NOW,
    TABLE,
    CorrectionCase,
    checked,
    envelope,
    reading,
)

Json = dict[str, Any]


@pytest.fixture
def dependencies(aws: Callable[[str], Any]) -> CorrectionCase:
    made = CorrectionCase(aws, checked())
    made.store([reading("a", hour, v) for hour, v in enumerate([1.0, 2.0, 50.0, 3.0, 40.0, 2.0])], (3, 3))
    made.checkpoint()
    return made


def received(dependencies: CorrectionCase, *bodies: str, url: str | None = None) -> Json:
    """Send messages to the queue, receive them, and return the Lambda event."""
    url = url or dependencies.queue
    for body in bodies:
        dependencies.sqs.send_message(QueueUrl=url, MessageBody=body)
    messages: list[Json] = []
    while len(messages) < len(bodies):
        answer = dependencies.sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, AttributeNames=["ApproximateReceiveCount"]
        )
        messages += [
            {
                "messageId": m["MessageId"],
                "receiptHandle": m["ReceiptHandle"],
                "body": m["Body"],
                "attributes": m["Attributes"],
            }
            for m in answer["Messages"]
        ]
    return {"Records": messages}


def objects(dependencies: CorrectionCase, prefix: str) -> dict[str, bytes]:
    found = dependencies.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", ())
    return {
        item["Key"]: dependencies.s3.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read()
        for item in found
    }


def test_an_alert_is_corrected_once(
    dependencies: CorrectionCase,
) -> None:
    body = envelope(dependencies.request(2))
    event = received(dependencies, body, body)
    assert correct_batch(event, dependencies.queue_dependencies()) == {"batchItemFailures": []}
    assert correct_batch(event, dependencies.queue_dependencies()) == {"batchItemFailures": []}
    assert count_corrections(dependencies.dynamodb, TABLE, APPLICATION) == {"corrected": 1, "manual": 0}
    assert dependencies.manual_messages() == []


def test_a_second_request_is_one_manual_review_without_payload(dependencies: CorrectionCase) -> None:
    by = [envelope(dependencies.request(2, by)) for by in ("checks", "monitor", "monitor", "person")]
    assert correct_batch(received(dependencies, *by), dependencies.queue_dependencies()) == {
        "batchItemFailures": []
    }
    assert count_corrections(dependencies.dynamodb, TABLE, APPLICATION) == {"corrected": 1, "manual": 1}
    letters = dependencies.manual_messages()
    assert [letter["reason"] for letter in letters] == ["the record was already corrected once"]
    assert letters[0]["request"]["sequence"] == dependencies.records[2].sequence_number
    assert "50" not in letters[0]["reason"]


def test_an_early_request_is_hidden_and_delivered_again(
    dependencies: CorrectionCase,
) -> None:
    dependencies.checkpoint(0)
    event = received(dependencies, envelope(dependencies.request(2)))
    hidden: list[Json] = []

    class Watched:
        def change_message_visibility_batch(self, QueueUrl: str, Entries: list[Json]) -> None:
            hidden.extend(Entries)
            shown = [{**entry, "VisibilityTimeout": 0} for entry in Entries]
            dependencies.sqs.change_message_visibility_batch(QueueUrl=QueueUrl, Entries=shown)

    dependencies_of_queue = dependencies.queue_dependencies(sqs=Watched())
    name = event["Records"][0]["messageId"]
    assert correct_batch(event, dependencies_of_queue) == {"batchItemFailures": [{"itemIdentifier": name}]}
    again = received(dependencies, url=dependencies.queue)
    assert again == {"Records": []}
    answer = dependencies.sqs.receive_message(
        QueueUrl=dependencies.queue, AttributeNames=["ApproximateReceiveCount"]
    )
    (message,) = answer["Messages"]
    event["Records"][0] |= {"receiptHandle": message["ReceiptHandle"], "attributes": message["Attributes"]}
    assert len(correct_batch(event, dependencies_of_queue)["batchItemFailures"]) == 1
    assert [one["VisibilityTimeout"] for one in hidden] == [2, 4]
    dependencies.checkpoint()
    assert correct_batch(event, dependencies.queue_dependencies()) == {"batchItemFailures": []}
    assert count_corrections(dependencies.dynamodb, TABLE, APPLICATION) == {"corrected": 1, "manual": 0}


def test_an_unexpected_error_returns_only_its_message_to_the_queue(
    dependencies: CorrectionCase,
) -> None:
    def work(requests: Sequence[Request], may_read: MayRead) -> list[Correction | Exception]:
        broken = [one.sequence == dependencies.records[2].sequence_number for one in requests]
        found = iter(
            dependencies.corrector().correct_all(
                [r for r, b in zip(requests, broken, strict=True) if not b], may_read
            )
        )
        return [OSError("no network") if is_broken else next(found) for is_broken in broken]

    event = received(dependencies, envelope(dependencies.request(2)), envelope(dependencies.request(4)))
    first = next(
        m["messageId"] for m in event["Records"] if dependencies.records[2].sequence_number in m["body"]
    )
    answer = correct_batch(event, dependencies.queue_dependencies(work=work))
    assert answer == {"batchItemFailures": [{"itemIdentifier": first}]}
    assert count_corrections(dependencies.dynamodb, TABLE, APPLICATION) == {"corrected": 1, "manual": 0}
    assert correct_batch(event, dependencies.queue_dependencies()) == {"batchItemFailures": []}
    assert count_corrections(dependencies.dynamodb, TABLE, APPLICATION) == {"corrected": 2, "manual": 0}


def test_a_backlog_respects_the_read_limit_and_the_rest_is_delivered_again(
    dependencies: CorrectionCase,
) -> None:
    now, asked = 0.0, []

    def sleep(seconds: float) -> None:
        nonlocal now
        asked.append(seconds)
        now += seconds

    event = received(
        dependencies, *[envelope(dependencies.request(at)) for at in (2, 4)]
    )  # of two files: two reads
    stingy = ReadLimiter(0.001, 1.0, lambda: now, sleep)
    assert len(correct_batch(event, dependencies.queue_dependencies(reads=stingy))["batchItemFailures"]) == 1
    assert count_corrections(dependencies.dynamodb, TABLE, APPLICATION) == {"corrected": 1, "manual": 0}
    reads = ReadLimiter(0.5, 1.0, lambda: now, sleep)
    assert reads.within(0.0)(dependencies.shard)
    assert correct_batch(event, dependencies.queue_dependencies(reads=reads)) == {"batchItemFailures": []}
    assert asked == [2.0]
    assert count_corrections(dependencies.dynamodb, TABLE, APPLICATION) == {"corrected": 2, "manual": 0}


def test_a_throttled_last_attempt_is_delivered_again_without_manual_review(
    dependencies: CorrectionCase,
) -> None:
    event = received(dependencies, envelope(dependencies.request(2)), url=dependencies.dead)
    reads = ReadLimiter(0.001, 1.0, lambda: 0.0, lambda _seconds: None)
    assert reads.within(0.0)(dependencies.shard)
    assert (
        len(correct_dead_letters(event, dependencies.queue_dependencies(reads=reads))["batchItemFailures"])
        == 1
    )
    assert count_corrections(dependencies.dynamodb, TABLE, APPLICATION) == {"corrected": 0, "manual": 0}


@pytest.mark.parametrize("handler", [correct_batch, correct_dead_letters])
def test_an_invalid_request_goes_to_manual_review_at_once(dependencies: CorrectionCase, handler: Any) -> None:
    other = envelope(dependencies.request(2, consumer="another"))
    bodies = ["no json", "{}", other, envelope(dependencies.request(2, sequence="../x")), "no json"]
    assert handler(received(dependencies, *bodies), dependencies.queue_dependencies()) == {
        "batchItemFailures": []
    }
    assert sorted(objects(dependencies, f"manual/{APPLICATION}/unreadable/").values()) == sorted(
        body.encode() for body in set(bodies)
    )
    assert count_corrections(dependencies.dynamodb, TABLE, APPLICATION) == {"corrected": 0, "manual": 0}


@pytest.mark.parametrize(
    "changes",
    [
        {"id": ""},
        {"id": "x" * 513},
        {"shard": "a/b"},
        {"event": ""},
        {"sequence": "-1"},
        {"sub": -1},
        {"arrived": -1},
        {"arrived": 10**14},
    ],
)
def test_a_request_is_validated_before_keys_are_built_from_it(changes: Json) -> None:
    good = Request(id="i", event="e", key="k", consumer="air", shard="s-1", sequence="1", arrived=0, by="b")
    assert parse(envelope(good), "air") == good
    with pytest.raises(ValueError, match="invalid"):
        parse(envelope(msgspec.structs.replace(good, **changes)), "air")
    with pytest.raises(ValueError, match="detail-type"):
        parse(envelope(good, "SomethingElse"), "air")


def test_the_dead_letter_queue_retries_once_and_stores_failures_for_manual_review(
    dependencies: CorrectionCase,
) -> None:
    luckless = dependencies.request(
        0, arrived=dependencies.records[0].arrived
    )  # not flagged: nothing to correct
    bodies = [envelope(dependencies.request(2)), envelope(luckless)]
    event = received(dependencies, *bodies, url=dependencies.dead)
    for _ in range(3):
        assert correct_dead_letters(event, dependencies.queue_dependencies()) == {"batchItemFailures": []}
    assert count_corrections(dependencies.dynamodb, TABLE, APPLICATION) == {"corrected": 1, "manual": 1}
    stored = objects(dependencies, f"manual/{APPLICATION}/")
    assert list(stored) == [manual_key(luckless)]
    assert (
        msgspec.json.decode(stored[manual_key(luckless)])["reason"]
        == "the declared correction changes nothing"
    )
    entry = dependencies.history.get(APPLICATION, luckless.position)
    assert entry is not None
    assert entry.refusal is not None
    assert (entry.refusal.stored, entry.notified) == (manual_key(luckless), True)
    # The first queue does not request another manual review.
    assert correct_batch(received(dependencies, *bodies), dependencies.queue_dependencies()) == {
        "batchItemFailures": []
    }
    assert dependencies.manual_messages() == []


def test_a_request_still_too_early_at_the_last_attempt_goes_to_manual_review(
    dependencies: CorrectionCase,
) -> None:
    dependencies.checkpoint("TRIM_HORIZON")
    assert correct_dead_letters(
        received(dependencies, envelope(dependencies.request(2))), dependencies.queue_dependencies()
    ) == {"batchItemFailures": []}
    assert count_corrections(dependencies.dynamodb, TABLE, APPLICATION) == {"corrected": 0, "manual": 1}


def test_history_entries_are_ordered_by_position_within_one_consumer(aws: Callable[[str], Any]) -> None:
    dependencies = CorrectionCase(aws, checked())
    history = History(dependencies.dynamodb, TABLE, lambda: NOW)
    asked = [
        Request(id="i", event="e", key="k", consumer=c, shard=s, sequence=q, sub=n, arrived=0)
        for c in ("air", "airy")
        for s in ("s-1", "s-2")
        for q, n in (("9", 0), ("10", 0), ("10", 2), ("10", 10), ("100", 0))
    ]
    for one in reversed(asked):
        assert history.start(one).request == one
    mine = [one for one in asked if one.consumer == "air"]
    assert [entry.request for entry in history.entries("air")] == mine
    part = history.entries("air", Position("s-1", "10"), Position("s-1", "10", 10))
    assert [entry.request for entry in part] == mine[1:4]
    other = msgspec.structs.replace(mine[0], id="another")
    assert history.start(other).request == mine[0]
    done = Correction(
        key="k", version="2", version_before="1", before={"a": 1.5}, after={"a": None}, affected=["2"]
    )
    assert [history.finish(mine[0], done), history.finish(other, done)] == [True, False]
    assert [history.refuse(other, "b"), history.refuse(mine[0], "c")] == [True, False]
    history.notified(other)
    entry = history.get("air", mine[0].position)
    assert entry is not None
    assert (entry.done, entry.done_at, entry.notified) == (done, NOW, True)
    assert entry.refusal is not None
    assert (entry.refusal.request.id, entry.refusal.reason, entry.refusal.at) == ("another", "b", NOW)
    assert history.get("air", Position("s-1", "11")) is None
