"""Everything known about a failed record: payload, schema, redrives and correction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from stream_app.aws.objects import get
from stream_app.errors import StreamAppError
from stream_app.model.record import Position
from stream_app.model.segment import utc_datetime
from stream_app.pipeline.registry import Registry
from stream_app.recovery import store
from stream_app.recovery.bounded import to_plain
from stream_app.recovery.correct.history_entry import Entry
from stream_app.recovery.find.payload import Readable, SchemaVersion, readable_payload, schema_version
from stream_app.recovery.find.query import Query, cause, find_named, handle
from stream_app.recovery.hydrate.results import DeadLetterRecord, get_record
from stream_app.recovery.redrive.ledger.items import Attempt
from stream_app.recovery.redrive.message import read
from stream_app.recovery.store import StoredFailure

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class NoSuchFailureError(StreamAppError):
    """There is no failure with that name."""


@dataclass(frozen=True, slots=True)
class HistorySource:
    """Looks up a record's redrives and its correction; by default it finds none."""

    redrives: Callable[[str], Sequence[Attempt]] = lambda _root: ()
    correction: Callable[[str, Position], Entry | None] = lambda _consumer, _position: None


@dataclass(frozen=True, slots=True)
class FailureDetails:
    """Everything known about a failure.

    `dead_letter` is the record of the dead letter if it named a range of records, else None.
    """

    key: str
    stored: StoredFailure
    status: str | None
    payload: Readable
    schema: SchemaVersion | None
    dead_letter: DeadLetterRecord | None
    correction: Entry | None
    redrives: Sequence[Attempt]

    def to_json(self) -> dict[str, object]:
        """Return built-in types.

        `payload` is the value of `find.payload.readable_payload`, `stored` the stored object itself.
        """
        return {
            "id": handle(self.key),
            "key": self.key,
            "status": self.status,
            "fingerprint": cause(self.stored),
            "form": self.payload.form,
            "payload": self.payload.value,
            "schema": None if self.schema is None else self.schema._asdict(),
            "stored": to_plain(self.stored),
            "letter": None if self.dead_letter is None else to_plain(self.dead_letter),
            "correction": msgspec.to_builtins(self.correction),
            "redrives": msgspec.to_builtins(list(self.redrives)),
        }


def find_failure(s3: S3Client, bucket: str, query: Query, name: str) -> str:
    """Return the key of a failure by its key, its `s3://` URI, its handle or its position.

    `query` limits the search for the latter two (`find.query.find_named`). Raises NoSuchFailureError, and what
    boto3 raises.
    """
    key = name.removeprefix(f"s3://{bucket}/")
    if store.parse_key(key) is not None:
        return key
    found = find_named(s3, bucket, query, name)
    if found is None:
        raise NoSuchFailureError(
            f"consumer {query.consumer} has no failure {name!r}: list the IDs with `stream-app failures ls`"
        )
    return found


def load_details(
    s3: S3Client, bucket: str, key: str, registry: Registry, archive: HistorySource
) -> FailureDetails:
    """Load everything about the failure with a key.

    Raises NoSuchFailureError, and what boto3 raises.
    """
    body = get(s3, bucket, key)
    if body is None:
        raise NoSuchFailureError(f"s3://{bucket}/{key} does not exist")
    try:
        stored = store.load(body)
    except ValueError as error:
        raise NoSuchFailureError(f"s3://{bucket}/{key} is {error}") from error
    return FailureDetails(
        key=key,
        stored=stored,
        status=store.status(s3, bucket, key),
        payload=readable_payload(stored.data, registry),
        schema=schema_version(stored.schema, registry) if stored.schema else None,
        dead_letter=get_record(s3, bucket, stored.origin) if stored.origin else None,
        correction=archive.correction(stored.consumer, stored.dead_letter.position),
        redrives=archive.redrives(_root(key, stored, registry)),
    )


def failure_row(key: str, stored: StoredFailure, status: str | None) -> dict[str, object]:
    """Return a failure as a row of a list, in built-in types, without its payload."""
    return {
        "id": handle(key),
        "key": key,
        "status": status,
        "arrived": utc_datetime(stored.arrived).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "consumer": stored.consumer,
        "stream": stored.stream,
        "shard": stored.shard,
        "sequence": stored.sequence,
        "sub": stored.sub,
        "partition_key": stored.partition_key,
        "event": stored.event,
        "schema": stored.schema,
        "stage": stored.stage,
        "code": stored.code,
        "reason": stored.reason,
        "fingerprint": cause(stored),
        "attempts": stored.attempts,
    }


def _root(key: str, stored: StoredFailure, registry: Registry) -> str:
    """Return the key by which the ledger knows the failure: that of its first failure."""
    message = read(stored.data, registry) if stored.data is not None else None
    return message.lineage.root if message is not None and message.lineage is not None else key
