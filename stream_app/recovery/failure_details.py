"""A failed record's whole story: what it was, why it failed, and what was done about it since."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from stream_app.aws.objects import get
from stream_app.errors import StreamAppError
from stream_app.model.record import Position
from stream_app.model.segment import utc_datetime
from stream_app.pipeline.registry import Registry
from stream_app.recovery import store
from stream_app.recovery.bounded import to_plain
from stream_app.recovery.correct.history import Entry
from stream_app.recovery.find.payload import Readable, SchemaVersion, readable_payload, schema_version
from stream_app.recovery.find.query import Query, cause, find_named, handle
from stream_app.recovery.hydrate.results import LetterRecord, get_record
from stream_app.recovery.redrive.ledger.items import Attempt
from stream_app.recovery.redrive.message import read
from stream_app.recovery.store import StoredFailure


class NoSuchFailureError(StreamAppError):
    """There is no failure of that name."""


@dataclass(frozen=True, slots=True)
class HistorySource:
    """Where what was done about a record is written down; either may be unknown."""

    redrives: Callable[[str], Sequence[Attempt]] = lambda _root: ()
    correction: Callable[[str, Position], Entry | None] = lambda _consumer, _position: None


@dataclass(frozen=True, slots=True)
class FailureDetails:
    """All that is known of a failure. `letter` is the record of the range that it came from, None for one of ours."""

    key: str
    stored: StoredFailure
    status: str | None
    payload: Readable
    schema: SchemaVersion | None
    letter: LetterRecord | None
    correction: Entry | None
    redrives: Sequence[Attempt]

    def to_json(self) -> dict[str, Any]:
        """Built-in types. `payload` is what `find.payload.readable` makes of it, `stored` the object itself."""
        return {
            "id": handle(self.key),
            "key": self.key,
            "status": self.status,
            "fingerprint": cause(self.stored),
            "form": self.payload.form,
            "payload": self.payload.value,
            "schema": None if self.schema is None else self.schema._asdict(),
            "stored": to_plain(self.stored),
            "letter": None if self.letter is None else to_plain(self.letter),
            "correction": msgspec.to_builtins(self.correction),
            "redrives": msgspec.to_builtins(list(self.redrives)),
        }


def find_failure(s3: Any, bucket: str, query: Query, name: str) -> str:
    """The key of a failure by its key, its `s3://` address, its handle or its position (`find.query.find_named`).

    `query` says where to look for the latter two. Raises NoSuchFailureError, and what boto3 raises.
    """
    key = name.removeprefix(f"s3://{bucket}/")
    if store.parse_key(key) is not None:
        return key
    found = find_named(s3, bucket, query, name)
    if found is None:
        raise NoSuchFailureError(
            f"no failure of {query.consumer} is {name!r}: failures ls shows ids and more"
        )
    return found


def load_details(
    s3: Any, bucket: str, key: str, registry: Registry, archive: HistorySource
) -> FailureDetails:
    """Everything about the failure under a key. Raises NoSuchFailureError, and what boto3 raises."""
    body = get(s3, bucket, key)
    if body is None:
        raise NoSuchFailureError(f"there is no s3://{bucket}/{key}")
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
        letter=get_record(s3, bucket, stored.origin) if stored.origin else None,
        correction=archive.correction(stored.consumer, stored.dead_letter.position),
        redrives=archive.redrives(_root(key, stored, registry)),
    )


def failure_row(key: str, stored: StoredFailure, status: str | None) -> dict[str, Any]:
    """A failure as a line of a list, built-in types, without its payload."""
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
    """The key by which the ledger knows it: that of its first failure, if it was sent again since."""
    message = read(stored.data, registry) if stored.data is not None else None
    return message.lineage.root if message is not None and message.lineage is not None else key
