"""Parses the supported formats of Kinesis dead letters.

- `DeadLetter`: from this application's consumer; one failed record with stage, code and reason.
- `Range`: EventBridge Pipes (`context`, `KinesisBatchInfo`) and Lambda's event source mapping (`requestContext`,
  `responseContext`, `KinesisBatchInfo`): a range of records of a shard. On S3, Lambda adds `payload`, the event of
  the invocation, which makes it unnecessary to read the stream.
- `Pointer`: from S3 notifications that such an object was created.

Each may be wrapped in an SNS envelope. Anything else is malformed (ValueError).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple
from urllib.parse import unquote_plus

import msgspec

from stream_app.recovery.bounded import decoded
from stream_app.recovery.dead_letters import KIND, NAME, DeadLetter, is_sequence, parse
from stream_app.recovery.stream.read import RawRecord

PIPE, LAMBDA, OWN = "pipe", "lambda", "stream-app"
_MAX_ENVELOPES = 3  # nested SNS envelopes
_MAX_DETAIL = 300
_STREAM = re.compile(r"arn:[\w-]+:kinesis:[\w-]*:\d*:stream/([\w.-]+)(?:/.*)?", re.ASCII)
_PIPE = re.compile(r"arn:[\w-]+:pipes:[\w-]*:\d*:pipe/([\w.-]+)", re.ASCII)
_FUNCTION = re.compile(r"arn:[\w-]+:lambda:[\w-]*:\d*:function:([\w-]+)(?::[\w$-]+)?", re.ASCII)

Time = Annotated[datetime, msgspec.Meta(tz=True)]


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter that names a range of records of one shard, both ends inclusive.

    `source` is PIPE or LAMBDA, `consumer` the name of the pipe or function, `size` the number of Kinesis records in
    the failed batch (fewer than in the range if the source filters, or processes several batches of a shard
    concurrently). Times are in milliseconds since the epoch. `message` is the original dead letter without payload;
    `carried` are the records in its payload.
    """

    source: str
    consumer: str
    stream: str
    arn: str
    shard: str
    first: str
    last: str
    arrived: int
    arrived_last: int
    size: int
    condition: str
    detail: str
    message: msgspec.Raw
    carried: Sequence[RawRecord] = ()


# A message decoded from JSON.
_Document = dict[str, Any]


class Pointer(NamedTuple):
    """An S3 object that contains an invocation record."""

    bucket: str
    key: str


AnyDeadLetter = DeadLetter | Range


class _BatchInfo(msgspec.Struct, rename="camel"):
    shard_id: str
    start_sequence_number: str
    end_sequence_number: str
    approximate_arrival_of_first_record: Time
    approximate_arrival_of_last_record: Time
    batch_size: int
    stream_arn: str


class _PipeContext(msgspec.Struct, rename="camel"):
    partner_resource_arn: str
    condition: str


class _RequestContext(msgspec.Struct, rename="camel"):
    function_arn: str
    condition: str
    approximate_invoke_count: int | None = None


class _ResponseContext(msgspec.Struct, rename="camel"):
    function_error: str | None = None


class _Message(msgspec.Struct, rename="camel"):
    """The format of Pipes and Lambda; a batch that expired before any invocation has no `responseContext`."""

    info: _BatchInfo = msgspec.field(name="KinesisBatchInfo")
    context: _PipeContext | None = None
    request_context: _RequestContext | None = None
    response_context: _ResponseContext | None = None


class _Kinesis(msgspec.Struct, rename="camel"):
    sequence_number: str
    partition_key: str
    data: bytes
    approximate_arrival_timestamp: float


class _Invocation(msgspec.Struct):
    kinesis: _Kinesis


class _Payload(msgspec.Struct):
    records: list[_Invocation] = msgspec.field(name="Records")


def read(body: str | bytes) -> AnyDeadLetter | tuple[Pointer, ...]:
    """Parse a message into a dead letter or pointers to S3 objects; no pointers for a test notification of S3.

    Raises ValueError, whose text contains no payload, if it is not a Kinesis dead letter.
    """
    return _read(body, _MAX_ENVELOPES)


def _read(body: str | bytes, envelopes: int) -> AnyDeadLetter | tuple[Pointer, ...]:
    try:
        plain = decoded(body)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(plain, dict):
        raise ValueError(f"not a JSON object but a {type(plain).__name__}")
    if plain.get("kind") == KIND:
        return parse(body)
    if "KinesisBatchInfo" in plain:
        return _range(plain)
    if plain.get("Type") == "Notification" and isinstance(plain.get("Message"), str) and envelopes:
        return _read(plain["Message"], envelopes - 1)
    if plain.get("Event") == "s3:TestEvent":
        return ()
    return _pointers(plain)


def _range(plain: _Document) -> Range:
    try:
        message = msgspec.convert(plain, _Message)
    except msgspec.ValidationError as error:
        raise ValueError(f"not a dead letter of a pipe or a function: {error}") from error
    source, consumer, condition, detail = _sender(message)
    info = message.info
    stream = _matched(_STREAM, info.stream_arn, "stream")
    ends = info.start_sequence_number, info.end_sequence_number
    if not all(map(is_sequence, ends)) or int(ends[0]) > int(ends[1]):
        raise ValueError("its sequence numbers are not a range")
    if NAME.fullmatch(info.shard_id) is None or info.batch_size < 1:
        raise ValueError("its shard id or batch size is not valid")
    kept = {name: value for name, value in plain.items() if name != "payload"}
    return Range(
        source=source,
        consumer=consumer,
        stream=stream,
        arn=info.stream_arn.partition("/consumer/")[0],
        shard=info.shard_id,
        first=ends[0],
        last=ends[1],
        arrived=_milliseconds(info.approximate_arrival_of_first_record),
        arrived_last=_milliseconds(info.approximate_arrival_of_last_record),
        size=info.batch_size,
        condition=condition,
        detail=detail,
        message=msgspec.Raw(msgspec.json.encode(kept)),
        carried=_carried(plain.get("payload"), ends),
    )


def _sender(message: _Message) -> tuple[str, str, str, str]:
    """Return source, consumer, condition and a description of the cause."""
    if message.context is not None:
        name = _matched(_PIPE, message.context.partner_resource_arn, "pipe")
        condition = _bounded(message.context.condition)
        return PIPE, name, condition, f"{condition} in pipe {name}"
    if message.request_context is not None:
        asked = message.request_context
        name, condition = _matched(_FUNCTION, asked.function_arn, "function"), _bounded(asked.condition)
        error = message.response_context.function_error if message.response_context else None
        calls = f" after {asked.approximate_invoke_count} calls" if asked.approximate_invoke_count else ""
        detail = f"{condition} in function {name}{calls}" + (f": {_bounded(error)}" if error else "")
        return LAMBDA, name, condition, detail
    raise ValueError("neither context nor requestContext is present")


def _matched(pattern: re.Pattern[str], arn: str, what: str) -> str:
    found = pattern.fullmatch(arn)
    if found is None:
        raise ValueError(f"not the ARN of a {what}: {arn[:200]!r}")
    return found[1]


def _bounded(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text[:_MAX_DETAIL])


def _carried(payload: object, ends: tuple[str, str]) -> Sequence[RawRecord]:
    """Parse the records of an invocation's event, in order; none if it is malformed, as the stream has them too."""
    if payload is None:
        return ()
    try:
        text = payload if isinstance(payload, str) else msgspec.json.encode(payload)
        found = decoded(text, _Payload).records
        records = [_raw(item.kinesis) for item in found if is_sequence(item.kinesis.sequence_number)]
    except (msgspec.DecodeError, UnicodeError, OverflowError, OSError, ValueError):
        return ()
    low, high = map(int, ends)
    inside = (record for record in records if low <= int(record["SequenceNumber"]) <= high)
    return sorted(inside, key=lambda record: int(record["SequenceNumber"]))


def _raw(record: _Kinesis) -> RawRecord:
    return {
        "SequenceNumber": record.sequence_number,
        "PartitionKey": record.partition_key,
        "Data": record.data,
        "ApproximateArrivalTimestamp": datetime.fromtimestamp(record.approximate_arrival_timestamp, UTC),
    }


def _pointers(plain: _Document) -> tuple[Pointer, ...]:
    """Parse an S3 notification (its keys are URL-encoded) or an S3 event of EventBridge (they are not)."""
    try:
        if plain.get("source") == "aws.s3":
            detail = plain["detail"]
            return (Pointer(str(detail["bucket"]["name"]), str(detail["object"]["key"])),)
        found = [record["s3"] for record in plain["Records"]]
        return tuple(
            Pointer(str(one["bucket"]["name"]), unquote_plus(str(one["object"]["key"]))) for one in found
        )
    except (KeyError, TypeError) as error:
        raise ValueError("not in a supported format") from error


def _milliseconds(at: datetime) -> int:
    since = at - datetime(1970, 1, 1, tzinfo=UTC)
    if since.days < 0:
        raise ValueError("its arrival is before 1970")
    return (since.days * 86_400 + since.seconds) * 1_000 + since.microseconds // 1_000
