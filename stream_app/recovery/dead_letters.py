"""Dead letters: the metadata of failed records, sent to SQS, one message per record, without payload."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from stream_app.aws.retry import Policy, Sleep, call
from stream_app.errors import TRANSIENT_CODES, FatalError, TransientError
from stream_app.model.record import Failure, Position
from stream_app.model.record_metadata import record_metadata
from stream_app.model.segment import Segment, token
from stream_app.recovery.bounded import decoded, is_time

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

KIND = "stream-app.dead-letter"
VERSION = 1
REASON_LENGTH = 500
_BATCH = 10
_encode = msgspec.json.Encoder().encode
_MOST_DIGITS = 128
_MOST_SUB = 10**18
# Names of consumers, streams and shards, which become parts of S3 keys.
NAME = re.compile(r"[\w.-]{1,256}", re.ASCII)


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """The metadata of a failed record; `arrived` is in milliseconds since the epoch."""

    kind: str
    version: int
    consumer: str
    stream: str
    shard: str
    sequence: str
    sub: int
    partition_key: str
    arrived: int
    event: str | None
    schema: str | None
    stage: str
    code: str
    reason: str
    segment: str

    @property
    def position(self) -> Position:
        """The identity of the failed record."""
        return Position(self.shard, self.sequence, self.sub)


def messages(segment: Segment) -> list[str]:
    """Return one message body for each failed row, in row order: a `DeadLetter` as JSON.

    The bodies are ASCII, because a partition key may contain characters that SQS rejects.
    """
    ordered = sorted(segment.failed, key=attrgetter("row"))
    columns = record_metadata(segment.records).columns([failure.row for failure in ordered])
    return list(map(_Writer(segment).body, ordered, *columns))


def parse(body: str | bytes) -> DeadLetter:
    """Parse the body of a message. Raises ValueError if it is not a dead letter of this application."""
    try:
        dead_letter = decoded(body, DeadLetter)
    except ValueError as error:
        raise ValueError(f"not a dead letter: {error}") from error
    if dead_letter.kind != KIND or dead_letter.version != VERSION:
        raise ValueError(
            f"not a dead letter of version {VERSION}: {dead_letter.kind[:40]!r} {dead_letter.version}"
        )
    if not is_position(dead_letter.sequence, dead_letter.sub, dead_letter.arrived):
        raise ValueError("not a dead letter: its position or arrival time is not valid")
    if not all(map(NAME.fullmatch, (dead_letter.consumer, dead_letter.stream, dead_letter.shard))):
        raise ValueError("not a dead letter: its consumer, stream or shard name is not valid")
    return dead_letter


def is_sequence(text: str) -> bool:
    """Return whether a text is a possible sequence number: decimal digits of limited length."""
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS


def is_position(sequence: str, sub: int, arrived: int) -> bool:
    """Return whether sequence number, sub-sequence number and arrival time (ms) are in range."""
    return is_sequence(sequence) and 0 <= sub < _MOST_SUB and is_time(arrived)


def send(
    sqs: SQSClient,
    queue_url: str,
    bodies: Sequence[str],
    policy: Policy,
    *,
    sleep: Sleep,
    rng: random.Random,
) -> None:
    """Send messages in batches of ten, and retry only the failed messages of a batch.

    Idempotent: hydrating a dead letter twice writes the same object. Raises FatalError if a message cannot be sent,
    because continuing would lose it.
    """
    for start in range(0, len(bodies), _BATCH):
        waiting = {str(at): body for at, body in enumerate(bodies[start : start + _BATCH])}
        what = f"{len(waiting)} dead letters to {queue_url}"
        call(partial(_send_some, sqs, queue_url, waiting), policy, sleep=sleep, rng=rng, what=what)


def _send_some(sqs: SQSClient, queue_url: str, waiting: dict[str, str]) -> None:
    """Send one request and remove the sent messages from `waiting`. Raises TransientError if any remain."""
    entries: list[SendMessageBatchRequestEntryTypeDef] = [
        {"Id": at, "MessageBody": body} for at, body in waiting.items()
    ]
    answer = sqs.send_message_batch(QueueUrl=queue_url, Entries=entries)
    for sent in answer.get("Successful", ()):
        waiting.pop(sent["Id"], None)
    for failed in answer.get("Failed", ()):
        # A sender fault is permanent, except for throttling.
        if failed.get("SenderFault") and failed.get("Code") not in TRANSIENT_CODES:
            raise FatalError(f"a dead letter was refused: {failed.get('Code')}")
    if waiting:
        raise TransientError(f"{len(waiting)} dead letters were not taken")


class _Quoted(dict[str, str]):
    """A cache of texts as JSON: a device often has many dead letters."""

    def __init__(self, quote: Callable[[str], str]) -> None:
        super().__init__()
        self._quote = quote

    def __missing__(self, text: str) -> str:
        quoted = self[text] = self._quote(text)
        return quoted


class _Frame(NamedTuple):
    """The common parts of dead letters: beginning and end, whether without spaces, and the encoder of texts.

    msgspec writes JSON without spaces; what is not ASCII is escaped by `json`, which writes some.
    """

    before: str
    after: str
    compact: bool
    quoted: _Quoted


class _Writer:
    """Writes the dead letters of a segment."""

    def __init__(self, segment: Segment) -> None:
        names = {"consumer": segment.consumer, "stream": segment.stream, "shard": segment.shard}
        before = {"kind": KIND, "version": VERSION, **names}
        self._before, self._before_escaped = _ascii(before), json.dumps(before)
        self._first = token(segment.first)
        self._compact, self._escaped = _Quoted(_compact), _Quoted(json.dumps)
        self._frames: dict[tuple[object, ...], _Frame] = {}

    def body(self, failure: Failure, key: str, sequence: str, arrived: int, sub: int) -> str:
        """Return the dead letter of one failure, whose record has the other values."""
        plain = key.isascii() and sequence.isascii()
        common = (failure.event, failure.schema, failure.stage, failure.code, failure.reason, plain)
        known = self._frames.get(common)
        if known is None:
            known = self._frames[common] = self._frame(failure, plain=plain)
        before, after, compact, quoted = known
        number = f'"{sequence}"' if plain and sequence.isdigit() else quoted[sequence]
        own = quoted[key]
        if compact:
            return (
                f'{before},"sequence":{number},"sub":{sub},"partition_key":{own},"arrived":{arrived},{after}'
            )
        return f'{before}, "sequence": {number}, "sub": {sub}, "partition_key": {own}, "arrived": {arrived}, {after}'

    def _frame(self, failure: Failure, *, plain: bool) -> _Frame:
        """Build the frame; `plain` tells that the record's own values are ASCII."""
        about = {
            "event": failure.event,
            "schema": failure.schema,
            "stage": failure.stage,
            "code": str(failure.code),
            "reason": _bounded(failure.reason),
            "segment": self._first,
        }
        after = _ascii(about) if plain else None
        if self._before is None or after is None:
            return _Frame(self._before_escaped[:-1], json.dumps(about)[1:], False, self._escaped)
        return _Frame(self._before[:-1], after[1:], True, self._compact)


def _ascii(value: object) -> str | None:
    """Encode as JSON without spaces, None if the result is not ASCII."""
    try:
        text = _encode(value)
    except UnicodeEncodeError:
        return None
    return text.decode() if text.isascii() else None


def _compact(text: str) -> str:
    return _encode(text).decode()


@lru_cache(maxsize=1_000)  # most failures of a segment have few reasons
def _bounded(reason: str) -> str:
    """Truncate to REASON_LENGTH characters and replace unprintable ones, so that it fits a log line."""
    short = reason if len(reason) <= REASON_LENGTH else reason[: REASON_LENGTH - 1] + "…"
    if short.isprintable():
        return short
    return "".join(char if char.isprintable() else " " for char in short)
