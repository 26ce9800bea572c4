"""Quarantine on S3: how often processing began at a checkpoint, and which records are never processed again.

`quarantine/<consumer>/<shard>/attempts.json` and `quarantine/<consumer>/<shard>/records/<position>.json`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

from stream_app.aws import objects
from stream_app.errors import FatalError
from stream_app.model.record import Code, Failure, Position
from stream_app.model.segment import token

QUARANTINE = "quarantine/"
ATTEMPTS_KIND = "stream-app.attempts"
DECISION_KIND = "stream-app.quarantined"
VERSION = 1
_JSON = "application/json"


class Attempts(msgspec.Struct, frozen=True, kw_only=True):
    """How often processing began at a checkpoint of a shard without reaching a later one.

    `careful_until`: records that arrived until then (milliseconds since the epoch) are first processed in disposable
    forks; 0 where none are.
    """

    checkpoint: str
    attempts: int
    careful_until: int = 0
    kind: str = ATTEMPTS_KIND
    version: int = VERSION


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """That a record is not processed, and why. Every later reading of the record follows it.

    `attempts` counts the starts at the checkpoint before it; `arrived` and `decided` are in milliseconds since the
    epoch.
    """

    consumer: str
    shard: str
    sequence: str
    sub: int
    arrived: int
    decided: int
    code: str
    stage: str
    reason: str
    event: str | None = None
    schema: str | None = None
    attempts: int = 0
    kind: str = DECISION_KIND
    version: int = VERSION

    @property
    def position(self) -> Position:
        """The record's identity."""
        return Position(self.shard, self.sequence, self.sub)

    def failure(self, row: int) -> Failure:
        """The record as a failed row."""
        return Failure(row, self.stage, Code(self.code), self.reason, self.event, self.schema)


class QuarantineStore(Protocol):
    """Where attempts and decisions of one consumer are kept, by shard."""

    def attempts(self, shard: str) -> Attempts | None:
        """What was saved last, None where nothing was."""
        ...

    def save_attempts(self, shard: str, attempts: Attempts) -> None:
        """Keep it in place of what was saved before."""
        ...

    def decisions(self, shard: str) -> list[Decision]:
        """All decisions of the shard, in the order of their positions."""
        ...

    def decide(self, decision: Decision) -> Decision:
        """Keep a decision; the one that holds, which is the first of its position."""
        ...


class S3QuarantineStore:
    """Attempts and decisions of one consumer on S3."""

    def __init__(self, s3: Any, bucket: str, consumer: str) -> None:
        self._s3, self._bucket, self._consumer = s3, bucket, consumer

    def attempts(self, shard: str) -> Attempts | None:
        """Unreadable ones count as none: the worst that comes of it is a further attempt."""
        body = objects.get(self._s3, self._bucket, self._attempts_key(shard))
        if body is None:
            return None
        try:
            return msgspec.json.decode(body, type=Attempts)
        except msgspec.DecodeError:
            return None

    def save_attempts(self, shard: str, attempts: Attempts) -> None:
        """Raises what boto3 raises."""
        self._s3.put_object(**self._request(self._attempts_key(shard), attempts))

    def decisions(self, shard: str) -> list[Decision]:
        """Raises FatalError for one that cannot be read: processing its record might end every attempt."""
        prefix = f"{self._prefix(shard)}records/"
        found = [self._read(key) for key in objects.keys(self._s3, self._bucket, prefix)]
        return sorted((one for one in found if one is not None), key=lambda one: one.position.order)

    def decide(self, decision: Decision) -> Decision:
        """Raises what boto3 raises, FatalError when the one that is there cannot be read."""
        key = decision_key(self._consumer, decision.position)
        if objects.put_new(self._s3, self._request(key, decision)):
            return decision
        return self._read(key) or decision

    def forget(self, position: Position) -> bool:
        """Delete the decision of a position; whether there was one. The next reading processes the record."""
        key = decision_key(self._consumer, position)
        found = objects.head(self._s3, self._bucket, key) is not None
        self._s3.delete_object(Bucket=self._bucket, Key=key)
        return found

    def shards(self) -> Iterator[str]:
        """The shards of which something is kept."""
        for folder in objects.folders(self._s3, self._bucket, f"{QUARANTINE}{self._consumer}/"):
            yield folder.rstrip("/").rpartition("/")[2]

    def _read(self, key: str) -> Decision | None:
        body = objects.get(self._s3, self._bucket, key)
        if body is None:
            return None
        try:
            decision = msgspec.json.decode(body, type=Decision)
            decision.failure(0)
            decision.position.order  # noqa: B018
        except ValueError as error:
            raise FatalError(f"s3://{self._bucket}/{key} is no quarantine decision: {error}") from error
        return decision

    def _prefix(self, shard: str) -> str:
        return f"{QUARANTINE}{self._consumer}/{shard}/"

    def _attempts_key(self, shard: str) -> str:
        return f"{self._prefix(shard)}attempts.json"

    def _request(self, key: str, body: Attempts | Decision) -> dict[str, Any]:
        return {
            "Bucket": self._bucket,
            "Key": key,
            "Body": msgspec.json.encode(body),
            "ContentType": _JSON,
        }


def decision_key(consumer: str, position: Position) -> str:
    """Where the decision on a record is: `quarantine/<consumer>/<shard>/records/<position>.json`."""
    return f"{QUARANTINE}{consumer}/{position.shard}/records/{token(position)}.json"
