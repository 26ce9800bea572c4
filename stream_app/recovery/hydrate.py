"""Hydrate: dead letters in, full payloads on S3 out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from stream_app.errors import code_of
from stream_app.record import Record
from stream_app.recovery.dead_letters import DeadLetter, parse
from stream_app.recovery.store import failure, put
from stream_app.recovery.stream import pages, user_records

# A page is kept for the neighbours of the record that was asked for; failures often come together.
_PAGE = 500
_NOT_FOUND = "ResourceNotFoundException"
_NOT_A_PLACE = "InvalidArgumentException"


Found = Mapping[str, Sequence[Record] | None]


@dataclass(slots=True)
class Hydrated:
    """What became of each dead letter: keys written now, keys there before, keys whose record had left the stream.

    `expired` keys are among `written` or `kept` as well. `failed` tells why, by the index of the dead letter.
    """

    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    expired: list[str] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)


class Clients(Protocol):
    """The AWS clients that hydrate needs."""

    kinesis: Any
    s3: Any


class Place(Protocol):
    """The setting that hydrate needs."""

    @property
    def bucket(self) -> str:
        """The bucket of the failure store."""
        ...


Report = Callable[[Hydrated], None]


def hydrate(letters: Sequence[DeadLetter], kinesis: Any, s3: Any, bucket: str) -> Hydrated:
    """Find each dead letter's record in its stream and write its failure object.

    A record that has left the stream is written as metadata only, with status `expired`. Safe to repeat, in any
    order. One that cannot be read or written now stands in `failed`; the others go on.
    """
    done = Hydrated()
    for (stream, shard), members in _by_shard(letters).items():
        try:
            found = find(kinesis, stream, shard, {letters[at].sequence for at in members})
        except Exception as error:
            # Whatever it is, only these letters wait: they stay in the queue and come again.
            done.failed.update(dict.fromkeys(members, _why(error)))
            continue
        for at in members:
            _hydrate_one(done, at, letters[at], found, s3, bucket)
    return done


def hydrate_batch(
    event: Mapping[str, Any], *, kinesis: Any, s3: Any, bucket: str, report: Report | None = None
) -> dict[str, list[dict[str, str]]]:
    """Hydrate the messages of one Lambda SQS event; returns `batchItemFailures`, so that only these come again.

    A message that is no dead letter is among them as well: the queue's redrive policy keeps it in the end.
    `report` is told what became of the batch, with indexes into the event's records.
    """
    sent = event["Records"]
    letters: list[DeadLetter] = []
    places: list[int] = []
    unreadable: dict[int, str] = {}
    for at, message in enumerate(sent):
        try:
            letters.append(parse(message["body"]))
            places.append(at)
        except ValueError as error:
            unreadable[at] = str(error)
    done = hydrate(letters, kinesis, s3, bucket)
    done.failed = {**unreadable, **{places[at]: why for at, why in done.failed.items()}}
    if report is not None:
        report(done)
    return {"batchItemFailures": [{"itemIdentifier": sent[at]["messageId"]} for at in sorted(done.failed)]}


def make_handler(
    clients: Clients, place: Place, report: Report | None = None
) -> Callable[[Mapping[str, Any], Any], dict[str, list[dict[str, str]]]]:
    """The Lambda function of the dead-letter queue: `handler(event, context)`, by `hydrate_batch`."""

    def handler(event: Mapping[str, Any], context: Any) -> dict[str, list[dict[str, str]]]:
        return hydrate_batch(
            event, kinesis=clients.kinesis, s3=clients.s3, bucket=place.bucket, report=report
        )

    return handler


def find(kinesis: Any, stream: str, shard: str, sequences: Iterable[str]) -> Found:
    """The user records under each sequence number of a shard; None for what has left the stream.

    A number that the shard never gave is absent. Raises what boto3 raises.
    """
    found: dict[str, Sequence[Record] | None] = {}
    near: dict[str, dict[str, Any]] = {}
    for sequence in sorted(sequences, key=int):
        if sequence not in near:
            near = _page_at(kinesis, stream, shard, sequence)
        if sequence in near:
            found[sequence] = user_records(near[sequence])[0]
        elif _has_left(kinesis, stream, shard, sequence):
            found[sequence] = None
    return found


def _page_at(kinesis: Any, stream: str, shard: str, sequence: str) -> dict[str, dict[str, Any]]:
    """The first records of a shard from `sequence` on, by sequence number; none when it is no place there."""
    try:
        return _first(kinesis, stream, shard, sequence)
    except Exception as error:
        if code_of(error) == _NOT_A_PLACE or (code_of(error) == _NOT_FOUND and _exists(kinesis, stream)):
            return {}
        raise


def _has_left(kinesis: Any, stream: str, shard: str, sequence: str) -> bool:
    """Whether a number that is not in the shard is older than all that is, so that it may have been there."""
    try:
        oldest = min(map(int, _first(kinesis, stream, shard, None)), default=None)
    except Exception as error:
        if code_of(error) != _NOT_FOUND:
            raise
        return True  # the shard was closed, and forgotten when its last record left
    return oldest is None or int(sequence) < oldest


def _first(kinesis: Any, stream: str, shard: str, sequence: str | None) -> dict[str, dict[str, Any]]:
    for page in pages(kinesis, stream, shard, sequence, _PAGE):
        if page.records:
            return {record["SequenceNumber"]: record for record in page.records}
    return {}


def _exists(kinesis: Any, stream: str) -> bool:
    try:
        kinesis.describe_stream_summary(StreamName=stream)
    except Exception as error:
        if code_of(error) == _NOT_FOUND:
            return False
        raise
    return True


def _hydrate_one(done: Hydrated, at: int, letter: DeadLetter, found: Found, s3: Any, bucket: str) -> None:
    records = found.get(letter.sequence, ())
    if records is not None and letter.sub >= len(records):
        done.failed[at] = f"{letter.shard} has no record {letter.sequence}.{letter.sub}"
        return
    stored = failure(letter, None if records is None else records[letter.sub].data)
    try:
        (done.written if put(s3, bucket, stored) else done.kept).append(stored.key)
    except Exception as error:
        done.failed[at] = _why(error)
        return
    if records is None:
        done.expired.append(stored.key)


def _by_shard(letters: Sequence[DeadLetter]) -> dict[tuple[str, str], list[int]]:
    groups: dict[tuple[str, str], list[int]] = {}
    for at, letter in enumerate(letters):
        groups.setdefault((letter.stream, letter.shard), []).append(at)
    return groups


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
