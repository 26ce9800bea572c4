"""What became of dead letters: their metadata is kept whatever happened, and those that wait show their clock.

- `dead-letters/<consumer>/<YYYY>/<MM>/<DD>/<HH>/<arrival>-<shard>-<first>-<last>.json`: a range that was hydrated, or
  of which less than all was left. A letter of ours needs none: its failure's object holds it whole.
- `dead-letters/<consumer>/waiting/<arrival>-<shard>-<what>.json`: any letter that could not be hydrated when it
  came. The oldest, whose payload vanishes first, is listed first. It goes when the letter is hydrated.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import Any
from urllib.parse import urlencode

import msgspec

from stream_app.aws.objects import get, keys, put_new
from stream_app.model.segment import token, utc_datetime
from stream_app.recovery.bounded import decoded, is_time
from stream_app.recovery.dead_letters import DeadLetter
from stream_app.recovery.hours import hours
from stream_app.recovery.hydrate.narrow import Run
from stream_app.recovery.hydrate.shapes import OWN, Letter

LETTERS = "dead-letters/"
KIND = "stream-app.dead-letter-record"
_WAITING = "waiting/"


class State(StrEnum):
    """What became of a dead letter, in the order in which one gives way to the next."""

    WAITING = "waiting"  # not hydrated yet; it is in its queue, or in that queue's dead letter queue
    EXPIRED = "expired"  # all that it named had left the stream
    PARTIAL = "partial"  # some of it had
    HYDRATED = "hydrated"


_RANK = {state: rank for rank, state in enumerate(State)}


class LetterRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter and what became of it; positions are tokens, times in milliseconds since the epoch.

    `size` is how many Kinesis records it spoke of, `found` how many were there, `records` how many user records
    lay in those; `runs` tells for all of them, in order, whether they were stored as failures. `reason` says why it
    is not hydrated; `vanishes`, of a waiting one, when its first payload leaves the stream. `message` is the letter
    as it came, without payload.
    """

    kind: str = KIND
    version: int = 1
    state: State
    source: str
    consumer: str
    stream: str
    shard: str
    first: str
    last: str
    arrived: int
    arrived_last: int
    size: int
    condition: str
    found: int = 0
    records: int = 0
    runs: list[Run] = msgspec.field(default_factory=list)
    reason: str = ""
    vanishes: int | None = None
    message: msgspec.Raw

    def count(self, verdict: str) -> int:
        """How many records got that verdict."""
        return sum(run.count for run in self.runs if run.verdict == verdict)


def record_of(letter: Letter, state: State, **known: Any) -> LetterRecord:
    """The record of a letter; `known` are the fields that it does not tell itself."""
    if isinstance(letter, DeadLetter):
        where = token(letter.position)
        return LetterRecord(
            state=state,
            source=OWN,
            consumer=letter.consumer,
            stream=letter.stream,
            shard=letter.shard,
            first=where,
            last=where,
            arrived=letter.arrived,
            arrived_last=letter.arrived,
            size=1,
            condition=letter.code,
            message=msgspec.Raw(msgspec.json.encode(letter)),
            **known,
        )
    told = {name: getattr(letter, name) for name in _TOLD}
    return LetterRecord(state=state, **told, **known)


_TOLD = (
    "source",
    "consumer",
    "stream",
    "shard",
    "first",
    "last",
    "arrived",
    "arrived_last",
    "size",
    "condition",
    "message",
)


def letter_key(letter: Letter) -> str:
    """Where the record of a letter is stored, by identity alone."""
    at = utc_datetime(letter.arrived)
    return f"{LETTERS}{letter.consumer}/{at:%Y/%m/%d/%H}/{_name(letter)}"


def waiting_key(letter: Letter) -> str:
    """Where it is while it waits."""
    return f"{LETTERS}{letter.consumer}/{_WAITING}{_name(letter)}"


def _name(letter: Letter) -> str:
    at = utc_datetime(letter.arrived)
    what = token(letter.position) if isinstance(letter, DeadLetter) else f"{letter.first}-{letter.last}"
    return f"{at:%Y%m%dT%H%M%S}.{letter.arrived % 1000:03d}Z-{letter.shard}-{what}.json"


def put_record(s3: Any, bucket: str, key: str, record: LetterRecord) -> LetterRecord:
    """Store it, unless one is there that knows as much or more; returns the one that is there then.

    So a second delivery that finds less, because more has left the stream, takes nothing back. Raises what boto3
    raises.
    """
    request = _request(bucket, key, record)
    if put_new(s3, request):
        return record
    before = get_record(s3, bucket, key)
    if before is not None and _RANK[before.state] >= _RANK[record.state]:
        return before
    s3.put_object(**request)
    return record


def put_waiting(s3: Any, bucket: str, letter: Letter, reason: str, vanishes: int | None) -> str:
    """Keep the metadata of a letter that could not be hydrated; its key. Raises what boto3 raises."""
    key = waiting_key(letter)
    s3.put_object(**_request(bucket, key, record_of(letter, State.WAITING, reason=reason, vanishes=vanishes)))
    return key


def drop_waiting(s3: Any, bucket: str, letter: Letter) -> None:
    """It waits no longer; there need not be anything. Raises what boto3 raises."""
    s3.delete_object(Bucket=bucket, Key=waiting_key(letter))


def waiting_keys(s3: Any, bucket: str, consumer: str) -> Iterator[str]:
    """Where the letters of a consumer are that wait, the first to vanish first. Raises what boto3 raises."""
    return keys(s3, bucket, f"{LETTERS}{consumer}/{_WAITING}")


def waiting(s3: Any, bucket: str, consumer: str) -> Iterator[LetterRecord]:
    """The letters of a consumer that wait, the first to vanish first; lazy. Raises what boto3 raises."""
    for key in waiting_keys(s3, bucket, consumer):
        found = get_record(s3, bucket, key)
        if found is not None:
            yield found


def _request(bucket: str, key: str, record: LetterRecord) -> dict[str, Any]:
    return {
        "Bucket": bucket,
        "Key": key,
        "Body": msgspec.json.encode(record),
        "ContentType": "application/json",
        "Tagging": urlencode({"status": record.state.value}),
    }


def letters(
    s3: Any, bucket: str, consumer: str, since: datetime | None, until: datetime | None
) -> Iterator[LetterRecord]:
    """The ranges of a consumer whose hour of arrival meets [since, until), UTC, the latest hour first; lazy.

    Raises what boto3 raises.
    """
    for hour in hours(s3, bucket, f"{LETTERS}{consumer}/", since, until, newest_first=True):
        for key in keys(s3, bucket, hour):
            found = get_record(s3, bucket, key)
            if found is not None:
                yield found


def get_record(s3: Any, bucket: str, key: str) -> LetterRecord | None:
    """The record under a key; None where there is none that can be read. Raises what boto3 raises."""
    body = get(s3, bucket, key)
    return None if body is None else parse_record(body)


def parse_record(body: bytes) -> LetterRecord | None:
    """The record in an object's body; None where there is none that can be read."""
    try:
        record = decoded(body, LetterRecord)
    except ValueError:
        return None
    return record if all(map(is_time, (record.arrived, record.arrived_last, record.vanishes))) else None
