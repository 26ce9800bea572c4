"""Results of hydration on S3: the metadata of dead letters, and the retention deadline of those that are waiting.

- `dead-letters/<consumer>/<YYYY>/<MM>/<DD>/<HH>/<arrival>-<shard>-<first>-<last>.json`: a range that was
  hydrated completely, in part, or not at all because its records had expired. A dead letter of this application's
  consumer has no such object, because its failure contains it.
- `dead-letters/<consumer>/waiting/<arrival>-<shard>-<what>.json`: any dead letter that could not be
  hydrated yet. The oldest, whose payload expires first, is listed first. It is deleted when the dead letter is
  hydrated.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, TypedDict, Unpack
from urllib.parse import urlencode

import msgspec

from stream_app.aws.objects import get, keys, put_new
from stream_app.model.segment import token, utc_datetime
from stream_app.recovery.bounded import decoded, is_time
from stream_app.recovery.dead_letters import DeadLetter
from stream_app.recovery.hours import hours
from stream_app.recovery.hydrate.shapes import OWN, AnyDeadLetter
from stream_app.recovery.hydrate.trial import Run

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import PutObjectRequestTypeDef

DEAD_LETTERS = "dead-letters/"
KIND = "stream-app.dead-letter-record"
_WAITING = "waiting/"


class State(StrEnum):
    """State of a dead letter; a later one in this order replaces an earlier one."""

    WAITING = "waiting"  # not hydrated yet; it is in its queue, or in that queue's dead-letter queue
    EXPIRED = "expired"  # all of its records had expired
    PARTIAL = "partial"  # some of its records had expired
    HYDRATED = "hydrated"


_RANK = {state: rank for rank, state in enumerate(State)}


class DeadLetterRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter and its state; positions are tokens, times in milliseconds since the epoch.

    `size` is the number of Kinesis records that it names, `found` the number of those found, and `records` the number
    of user records in them; `runs` has the outcome of all user records, in order. `reason` explains why it is not
    hydrated. `deadline` of a waiting dead letter is when its first payload expires. `message` is the original
    dead letter without payload.
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
    deadline: int | None = msgspec.field(default=None, name="vanishes")
    message: msgspec.Raw

    def count(self, outcome: str) -> int:
        """Return the number of records with an outcome."""
        return sum(run.count for run in self.runs if run.outcome == outcome)


class _Known(TypedDict, total=False):
    """Fields of a record that are not derived from its dead letter."""

    found: int
    records: int
    runs: list[Run]
    reason: str
    deadline: int | None


def record_of(dead_letter: AnyDeadLetter, state: State, **known: Unpack[_Known]) -> DeadLetterRecord:
    """Build the record of a dead letter; `known` are fields that are not derived from it."""
    if isinstance(dead_letter, DeadLetter):
        where = token(dead_letter.position)
        return DeadLetterRecord(
            state=state,
            source=OWN,
            consumer=dead_letter.consumer,
            stream=dead_letter.stream,
            shard=dead_letter.shard,
            first=where,
            last=where,
            arrived=dead_letter.arrived,
            arrived_last=dead_letter.arrived,
            size=1,
            condition=dead_letter.code,
            message=msgspec.Raw(msgspec.json.encode(dead_letter)),
            **known,
        )
    told = {name: getattr(dead_letter, name) for name in _RANGE_FIELDS}
    return DeadLetterRecord(state=state, **told, **known)


_RANGE_FIELDS = (
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


def record_key(dead_letter: AnyDeadLetter) -> str:
    """Return the key of a dead letter's record, a function of its identity only."""
    at = utc_datetime(dead_letter.arrived)
    return f"{DEAD_LETTERS}{dead_letter.consumer}/{at:%Y/%m/%d/%H}/{_name(dead_letter)}"


def waiting_key(dead_letter: AnyDeadLetter) -> str:
    """Return the key of a waiting dead letter."""
    return f"{DEAD_LETTERS}{dead_letter.consumer}/{_WAITING}{_name(dead_letter)}"


def _name(dead_letter: AnyDeadLetter) -> str:
    at = utc_datetime(dead_letter.arrived)
    what = (
        token(dead_letter.position)
        if isinstance(dead_letter, DeadLetter)
        else f"{dead_letter.first}-{dead_letter.last}"
    )
    return f"{at:%Y%m%dT%H%M%S}.{dead_letter.arrived % 1000:03d}Z-{dead_letter.shard}-{what}.json"


def put_record(s3: S3Client, bucket: str, key: str, record: DeadLetterRecord) -> DeadLetterRecord:
    """Store a record unless one of equal or later state exists, and return the stored one. Raises boto3 errors.

    So a repeated delivery that finds fewer records, because more have expired, does not overwrite a better result.
    """
    request = _request(bucket, key, record)
    if put_new(s3, dict(request)):
        return record
    before = get_record(s3, bucket, key)
    if before is not None and _RANK[before.state] >= _RANK[record.state]:
        return before
    s3.put_object(**request)
    return record


def put_waiting(
    s3: S3Client, bucket: str, dead_letter: AnyDeadLetter, reason: str, deadline: int | None
) -> str:
    """Store the metadata of a waiting dead letter and return its key. Raises boto3 errors."""
    key = waiting_key(dead_letter)
    s3.put_object(
        **_request(bucket, key, record_of(dead_letter, State.WAITING, reason=reason, deadline=deadline))
    )
    return key


def drop_waiting(s3: S3Client, bucket: str, dead_letter: AnyDeadLetter) -> None:
    """Delete the metadata of a waiting dead letter, if any. Raises boto3 errors."""
    s3.delete_object(Bucket=bucket, Key=waiting_key(dead_letter))


def waiting_keys(s3: S3Client, bucket: str, consumer: str) -> Iterator[str]:
    """Iterate over the keys of waiting dead letters, earliest deadline first. Raises boto3 errors."""
    return keys(s3, bucket, f"{DEAD_LETTERS}{consumer}/{_WAITING}")


def waiting(s3: S3Client, bucket: str, consumer: str) -> Iterator[DeadLetterRecord]:
    """Iterate lazily over waiting dead letters, earliest deadline first. Raises boto3 errors."""
    for key in waiting_keys(s3, bucket, consumer):
        found = get_record(s3, bucket, key)
        if found is not None:
            yield found


def _request(bucket: str, key: str, record: DeadLetterRecord) -> PutObjectRequestTypeDef:
    return {
        "Bucket": bucket,
        "Key": key,
        "Body": msgspec.json.encode(record),
        "ContentType": "application/json",
        "Tagging": urlencode({"status": record.state.value}),
    }


def dead_letter_records(
    s3: S3Client, bucket: str, consumer: str, since: datetime | None, until: datetime | None
) -> Iterator[DeadLetterRecord]:
    """Iterate lazily over a consumer's ranges whose arrival hour overlaps [since, until), UTC, latest hour first.

    Raises boto3 errors.
    """
    for hour in hours(s3, bucket, f"{DEAD_LETTERS}{consumer}/", since, until, newest_first=True):
        for key in keys(s3, bucket, hour):
            found = get_record(s3, bucket, key)
            if found is not None:
                yield found


def get_record(s3: S3Client, bucket: str, key: str) -> DeadLetterRecord | None:
    """Return the record under a key, None if it is missing or malformed. Raises boto3 errors."""
    body = get(s3, bucket, key)
    return None if body is None else parse_record(body)


def parse_record(body: bytes) -> DeadLetterRecord | None:
    """Parse a record, None if it is malformed."""
    try:
        record = decoded(body, DeadLetterRecord)
    except ValueError:
        return None
    return record if all(map(is_time, (record.arrived, record.arrived_last, record.deadline))) else None
