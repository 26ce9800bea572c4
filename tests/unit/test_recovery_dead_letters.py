"""Dead letters: metadata of every failed row, sent until SQS has taken each, or the process ends."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.aws.retry import Policy
from stream_app.errors import FatalError, TransientError
from stream_app.model.record import Code, Failure
from stream_app.model.record_metadata import RecordMetadata
from stream_app.model.segment import Segment
from stream_app.recovery.dead_letters import REASON_LENGTH, messages, parse, send
from tests.unit.test_sink_segment import SHARD, record, segment, segments


@given(segments)
def test_every_failed_row_is_one_message_that_names_its_record(one: Segment) -> None:
    made = [json.loads(message) for message in messages(one)]
    dead_letters = [parse(message) for message in messages(one)]
    assert [dead_letter.position for dead_letter in dead_letters] == one.positions(f.row for f in one.failed)
    for dead_letter, message, failed in zip(dead_letters, made, one.failed, strict=True):
        record = one.records[failed.row]
        assert message == {
            "kind": "stream-app.dead-letter",
            "version": 1,
            "consumer": "air",
            "stream": "devices",
            "shard": SHARD,
            "sequence": record.sequence_number,
            "sub": 0,
            "partition_key": "Dongsi",
            "arrived": record.arrived,
            "event": "air_quality",
            "schema": failed.schema,
            "stage": "verify",
            "code": failed.code,
            "reason": failed.reason,
            "segment": one.records[0].sequence_number,
        }
        assert dead_letter.code in set(Code)


@given(st.text(max_size=3 * REASON_LENGTH))
def test_a_reason_is_bounded_and_fits_in_a_log_line(reason: str) -> None:
    one = segment(["failed"])
    failed = Failure(0, "decode", Code.UNDECODABLE, reason)
    body = messages(Segment("a", "b", SHARD, one.records, {}, [failed], one.repeated))[0]
    sent = json.loads(body)["reason"]
    assert len(sent) <= REASON_LENGTH
    assert sent.isprintable()
    if reason.isprintable() and len(reason) <= REASON_LENGTH:
        assert sent == reason
    body.encode("ascii")


NAMES = st.text('a%é\\"', max_size=3)
KEYS = st.text(st.characters(min_codepoint=1, exclude_categories=()), max_size=4) | NAMES


@given(st.lists(st.tuples(KEYS, KEYS, st.sampled_from([None, "a", "b%d"])), min_size=1, max_size=6), NAMES)
def test_a_dead_letter_is_encoded_like_the_json_of_its_fields(
    rows: list[tuple[str, str, str | None]], consumer: str
) -> None:
    """Without spaces where all of it is ASCII, else as Python's own encoder writes it."""
    records = [record(at, key=key) for at, (key, _, _) in enumerate(rows)]
    failed = [Failure(at, "decode", Code.TOO_LARGE, why, event) for at, (_, why, event) in enumerate(rows)]
    one = Segment(consumer, "b", SHARD, records, {}, failed, np.zeros(0, dtype=np.int64))
    for body, kept in zip(messages(one), RecordMetadata(records), strict=True):
        fields = json.loads(body)
        assert fields["partition_key"] == kept.partition_key
        plain = json.dumps(fields, ensure_ascii=False).isascii()
        assert body == (msgspec.json.encode(fields).decode() if plain else json.dumps(fields))


GOOD = json.loads(messages(segment(["failed"]))[0])


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{}",
        "[]",
        "\ud800",
        json.dumps({**GOOD, "kind": "other"}),
        json.dumps({**GOOD, "version": 2}),
        json.dumps({**GOOD, "sequence": "SHARD_END"}),
        json.dumps({**GOOD, "sequence": ""}),
        json.dumps({**GOOD, "sequence": "9" * 5000}),
        json.dumps({**GOOD, "sub": -1}),
        json.dumps({**GOOD, "arrived": -1}),
        json.dumps({**GOOD, "arrived": 10**18}),
        json.dumps({**GOOD, "arrived": "now"}),
    ],
)
def test_an_invalid_dead_letter_is_refused(body: str) -> None:
    with pytest.raises(ValueError, match="not a dead letter"):
        parse(body)


class Queue:
    """An SQS that takes what a script lets it take: for each request, the fate of each entry in turn."""

    def __init__(self, fates: list[list[str]]) -> None:
        self.fates = fates
        self.requests: list[int] = []
        self.taken: list[dict[str, Any]] = []

    def send_message_batch(self, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:
        assert 1 <= len(Entries) <= 10
        assert len({entry["Id"] for entry in Entries}) == len(Entries)
        fates = self.fates.pop(0) if self.fates else []
        self.requests.append(len(Entries))
        if "raise" in fates:
            raise TransientError("no answer")
        answer: dict[str, Any] = {"Successful": [], "Failed": []}
        for at, entry in enumerate(Entries):
            fate = fates[at] if at < len(fates) else "ok"
            if fate == "ok":
                self.taken.append(json.loads(entry["MessageBody"]))
                answer["Successful"].append({"Id": entry["Id"]})
            elif fate != "silence":
                code = "RequestThrottled" if fate == "throttled" else "InvalidMessageContents"
                answer["Failed"].append({"Id": entry["Id"], "Code": code, "SenderFault": fate != "busy"})
        return answer


FATES = st.lists(st.lists(st.sampled_from(["ok", "busy", "throttled", "silence"]), max_size=10), max_size=6)


@given(st.integers(0, 35), FATES, st.integers(1, 4))
def test_every_message_is_accepted_once_or_the_process_ends(
    count: int, fates: list[list[str]], attempts: int
) -> None:
    queue: Any = Queue(list(fates))
    bodies = [json.dumps({"n": at}) for at in range(count)]
    pauses: list[float] = []
    try:
        send(queue, "q", bodies, Policy(attempts), sleep=pauses.append, rng=random.Random(1))
    except FatalError:
        assert len(pauses) >= attempts - 1
        assert any(fate != "ok" for batch in fates for fate in batch)
    else:
        assert sorted(body["n"] for body in queue.taken) == list(range(count))
    assert len({body["n"] for body in queue.taken}) == len(queue.taken)


def test_only_failed_messages_are_sent_again() -> None:
    queue: Any = Queue([["ok", "busy", "ok", "throttled"], ["busy", "ok"], ["ok"]])
    bodies = [json.dumps({"n": at}) for at in range(4)]
    send(queue, "q", bodies, Policy(), sleep=lambda _: None, rng=random.Random(1))
    assert queue.requests == [4, 2, 1]
    assert [body["n"] for body in queue.taken] == [0, 2, 3, 1]


def test_a_request_without_a_response_is_sent_again_completely() -> None:
    queue: Any = Queue([["raise"], []])
    send(queue, "q", ['{"n":0}', '{"n":1}'], Policy(), sleep=lambda _: None, rng=random.Random(1))
    assert queue.requests == [2, 2]


def test_a_permanently_refused_message_ends_the_process_at_once() -> None:
    queue: Any = Queue([["ok", "refused"]])
    with pytest.raises(FatalError, match="InvalidMessageContents"):
        send(queue, "q", ['{"n":0}', '{"n":1}'], Policy(), sleep=lambda _: None, rng=random.Random(1))
    assert queue.requests == [2]
