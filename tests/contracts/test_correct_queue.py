"""Requests come by queue: early ones wait, strange ones are kept for people, a backlog goes by tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from stream_app.model.record import Position
from stream_app.recovery.correct.calculation.payload import MayRead
from stream_app.recovery.correct.history import Done, History, Request, counts
from stream_app.recovery.correct.limits import Reads
from stream_app.recovery.correct.queue import correct_batch, dead_batch, manual_key, parse
from tests.contracts.correcting import APPLICATION, BUCKET, NOW, TABLE, World, checked, envelope, reading

Json = dict[str, Any]


@pytest.fixture
def world(aws: Callable[[str], Any]) -> World:
    made = World(aws, checked())
    made.store([reading("a", hour, v) for hour, v in enumerate([1.0, 2.0, 50.0, 3.0, 40.0, 2.0])], (3, 3))
    made.checkpoint()
    return made


def received(world: World, *bodies: str, url: str | None = None) -> Json:
    """The Lambda event of messages that were really received from the queue."""
    url = url or world.queue
    for body in bodies:
        world.sqs.send_message(QueueUrl=url, MessageBody=body)
    messages: list[Json] = []
    while len(messages) < len(bodies):
        answer = world.sqs.receive_message(
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


def objects(world: World, prefix: str) -> dict[str, bytes]:
    found = world.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", ())
    return {item["Key"]: world.s3.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read() for item in found}


def test_an_alert_of_the_bus_becomes_a_correction_and_repeats_of_it_nothing(world: World) -> None:
    body = envelope(world.request(2))
    event = received(world, body, body)
    assert correct_batch(event, world.desk()) == {"batchItemFailures": []}
    assert correct_batch(event, world.desk()) == {"batchItemFailures": []}
    assert counts(world.dynamodb, TABLE, APPLICATION) == {"corrected": 1, "manual": 0}
    assert world.manual_letters() == []


def test_a_second_request_is_one_letter_for_people_without_a_payload(world: World) -> None:
    by = [envelope(world.request(2, by)) for by in ("checks", "monitor", "monitor", "person")]
    assert correct_batch(received(world, *by), world.desk()) == {"batchItemFailures": []}
    assert counts(world.dynamodb, TABLE, APPLICATION) == {"corrected": 1, "manual": 1}
    letters = world.manual_letters()
    assert [letter["reason"] for letter in letters] == ["it was corrected once already"]
    assert letters[0]["request"]["sequence"] == world.records[2].sequence_number
    assert "50" not in letters[0]["reason"]


def test_a_request_that_is_too_early_is_hidden_for_a_while_and_comes_again(world: World) -> None:
    world.checkpoint(0)
    event = received(world, envelope(world.request(2)))
    hidden: list[Json] = []

    class Watched:
        def change_message_visibility_batch(self, QueueUrl: str, Entries: list[Json]) -> None:
            hidden.extend(Entries)
            shown = [{**entry, "VisibilityTimeout": 0} for entry in Entries]
            world.sqs.change_message_visibility_batch(QueueUrl=QueueUrl, Entries=shown)

    desk = world.desk(sqs=Watched())
    name = event["Records"][0]["messageId"]
    assert correct_batch(event, desk) == {"batchItemFailures": [{"itemIdentifier": name}]}
    again = received(world, url=world.queue)
    assert again == {"Records": []}
    answer = world.sqs.receive_message(QueueUrl=world.queue, AttributeNames=["ApproximateReceiveCount"])
    (message,) = answer["Messages"]
    event["Records"][0] |= {"receiptHandle": message["ReceiptHandle"], "attributes": message["Attributes"]}
    assert len(correct_batch(event, desk)["batchItemFailures"]) == 1
    assert [one["VisibilityTimeout"] for one in hidden] == [2, 4]
    world.checkpoint()
    assert correct_batch(event, world.desk()) == {"batchItemFailures": []}
    assert counts(world.dynamodb, TABLE, APPLICATION) == {"corrected": 1, "manual": 0}


def test_what_the_world_raises_leaves_one_message_to_its_queue_and_the_others_go_on(world: World) -> None:
    def work(requests: Sequence[Request], may_read: MayRead) -> list[Done | Exception]:
        broken = [one.sequence == world.records[2].sequence_number for one in requests]
        found = iter(
            world.corrector().correct_all(
                [r for r, b in zip(requests, broken, strict=True) if not b], may_read
            )
        )
        return [OSError("no network") if is_broken else next(found) for is_broken in broken]

    event = received(world, envelope(world.request(2)), envelope(world.request(4)))
    first = next(m["messageId"] for m in event["Records"] if world.records[2].sequence_number in m["body"])
    answer = correct_batch(event, world.desk(work=work))
    assert answer == {"batchItemFailures": [{"itemIdentifier": first}]}
    assert counts(world.dynamodb, TABLE, APPLICATION) == {"corrected": 1, "manual": 0}
    assert correct_batch(event, world.desk()) == {"batchItemFailures": []}
    assert counts(world.dynamodb, TABLE, APPLICATION) == {"corrected": 2, "manual": 0}


def test_a_backlog_reads_its_shard_as_often_as_it_may_and_what_is_left_comes_again(world: World) -> None:
    now, asked = 0.0, []

    def sleep(seconds: float) -> None:
        nonlocal now
        asked.append(seconds)
        now += seconds

    event = received(world, *[envelope(world.request(at)) for at in (2, 4)])  # of two files: two reads
    stingy = Reads(0.001, 1.0, lambda: now, sleep)
    assert len(correct_batch(event, world.desk(reads=stingy))["batchItemFailures"]) == 1
    assert counts(world.dynamodb, TABLE, APPLICATION) == {"corrected": 1, "manual": 0}
    reads = Reads(0.5, 1.0, lambda: now, sleep)
    assert reads.within(0.0)(world.shard)
    assert correct_batch(event, world.desk(reads=reads)) == {"batchItemFailures": []}
    assert asked == [2.0]
    assert counts(world.dynamodb, TABLE, APPLICATION) == {"corrected": 2, "manual": 0}


def test_a_last_try_that_may_not_read_the_stream_comes_again_and_is_not_for_people(world: World) -> None:
    event = received(world, envelope(world.request(2)), url=world.dead)
    reads = Reads(0.001, 1.0, lambda: 0.0, lambda _seconds: None)
    assert reads.within(0.0)(world.shard)
    assert len(dead_batch(event, world.desk(reads=reads))["batchItemFailures"]) == 1
    assert counts(world.dynamodb, TABLE, APPLICATION) == {"corrected": 0, "manual": 0}


@pytest.mark.parametrize("handler", [correct_batch, dead_batch])
def test_a_message_that_is_no_request_is_kept_for_people_at_once(world: World, handler: Any) -> None:
    other = envelope(world.request(2, consumer="another"))
    bodies = ["no json", "{}", other, envelope(world.request(2, sequence="../x")), "no json"]
    assert handler(received(world, *bodies), world.desk()) == {"batchItemFailures": []}
    assert sorted(objects(world, f"manual/{APPLICATION}/unreadable/").values()) == sorted(
        body.encode() for body in set(bodies)
    )
    assert counts(world.dynamodb, TABLE, APPLICATION) == {"corrected": 0, "manual": 0}


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
def test_a_request_is_checked_before_keys_are_made_of_it(changes: Json) -> None:
    good = Request(id="i", event="e", key="k", consumer="air", shard="s-1", sequence="1", arrived=0, by="b")
    assert parse(envelope(good), "air") == good
    with pytest.raises(ValueError, match="wrong"):
        parse(envelope(msgspec.structs.replace(good, **changes)), "air")
    with pytest.raises(ValueError, match="detail-type"):
        parse(envelope(good, "SomethingElse"), "air")


def test_the_dead_letter_queue_tries_once_more_and_stores_what_cannot_be_for_people(world: World) -> None:
    luckless = world.request(0, arrived=world.records[0].arrived)  # not flagged: nothing to correct
    bodies = [envelope(world.request(2)), envelope(luckless)]
    event = received(world, *bodies, url=world.dead)
    for _ in range(3):
        assert dead_batch(event, world.desk()) == {"batchItemFailures": []}
    assert counts(world.dynamodb, TABLE, APPLICATION) == {"corrected": 1, "manual": 1}
    stored = objects(world, f"manual/{APPLICATION}/")
    assert list(stored) == [manual_key(luckless)]
    assert (
        msgspec.json.decode(stored[manual_key(luckless)])["reason"]
        == "the declared correction changes nothing"
    )
    entry = world.history.get(APPLICATION, luckless.position)
    assert entry is not None
    assert entry.refusal is not None
    assert (entry.refusal.stored, entry.notified) == (manual_key(luckless), True)
    # Nobody is told again: neither by the first queue.
    assert correct_batch(received(world, *bodies), world.desk()) == {"batchItemFailures": []}
    assert world.manual_letters() == []


def test_the_last_try_of_what_is_still_too_early_is_for_people(world: World) -> None:
    world.checkpoint("TRIM_HORIZON")
    assert dead_batch(received(world, envelope(world.request(2))), world.desk()) == {"batchItemFailures": []}
    assert counts(world.dynamodb, TABLE, APPLICATION) == {"corrected": 0, "manual": 1}


def test_entries_are_in_order_of_positions_and_of_one_consumer(aws: Callable[[str], Any]) -> None:
    world = World(aws, checked())
    history = History(world.dynamodb, TABLE, lambda: NOW)
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
    done = Done(
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
