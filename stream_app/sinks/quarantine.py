"""Quarantine on S3: the attempts at a checkpoint, and the records that are not processed.

`quarantine/<consumer>/<shard>/attempts.json` and `quarantine/<consumer>/<shard>/records/<position>.json`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import msgspec

from stream_app.aws import objects
from stream_app.aws.objects import PutRequest
from stream_app.errors import FatalError
from stream_app.model.record import Code, Failure, Position
from stream_app.model.segment import token

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

QUARANTINE = "quarantine/"
ATTEMPTS_KIND = "stream-app.attempts"
DECISION_KIND = "stream-app.quarantined"
VERSION = 1
_JSON = "application/json"


class Attempts(msgspec.Struct, frozen=True, kw_only=True):
    """The number of starts at a checkpoint of a shard that did not reach a later checkpoint.

    Records that arrived until `careful_until` (milliseconds since the epoch) are first processed in disposable forks;
    0 for none.
    """

    checkpoint: str
    attempts: int
    careful_until: int = 0
    kind: str = ATTEMPTS_KIND
    version: int = VERSION


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The decision that a record is not processed, with its reason; every later run applies it.

    `attempts` is the number of starts at the checkpoint before it; `arrived` and `decided` are in milliseconds since
    the epoch.
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
        """The position of the record."""
        return Position(self.shard, self.sequence, self.sub)

    def failure(self, row: int) -> Failure:
        """Return the failure of the record as a row."""
        return Failure(row, self.stage, Code(self.code), self.reason, self.event, self.schema)


class QuarantineStore(Protocol):
    """Storage of the attempts and decisions of one consumer by shard."""

    def attempts(self, shard: str) -> Attempts | None:
        """Return the attempts that were saved last, None if there are none."""
        ...

    def save_attempts(self, shard: str, attempts: Attempts) -> None:
        """Replace the saved attempts."""
        ...

    def decisions(self, shard: str) -> list[Decision]:
        """Return all decisions of the shard in the order of their positions."""
        ...

    def decide(self, decision: Decision) -> Decision:
        """Store a decision; return the valid one, which is the first of its position."""
        ...


class S3QuarantineStore:
    """Stores the attempts and decisions of one consumer on S3 (protocol `QuarantineStore`)."""

    def __init__(self, s3: S3Client, bucket: str, consumer: str) -> None:
        self._s3, self._bucket, self._consumer = s3, bucket, consumer

    def attempts(self, shard: str) -> Attempts | None:
        """Return the attempts; None if they cannot be decoded, which costs at most further attempts."""
        body = objects.get(self._s3, self._bucket, self._attempts_key(shard))
        if body is None:
            return None
        try:
            return msgspec.json.decode(body, type=Attempts)
        except msgspec.DecodeError:
            return None

    def save_attempts(self, shard: str, attempts: Attempts) -> None:
        """Overwrite the object. Raises the errors of boto3."""
        self._s3.put_object(**self._request(self._attempts_key(shard), attempts))

    def decisions(self, shard: str) -> list[Decision]:
        """Return the decisions. Raises FatalError if one is invalid: its record could end every attempt."""
        prefix = f"{self._prefix(shard)}records/"
        found = [self._read(key) for key in objects.keys(self._s3, self._bucket, prefix)]
        return sorted((one for one in found if one is not None), key=lambda one: one.position.order)

    def decide(self, decision: Decision) -> Decision:
        """Create the object if it is new. Raises the errors of boto3, and FatalError if the stored one is invalid."""
        key = decision_key(self._consumer, decision.position)
        if objects.put_new(self._s3, self._request(key, decision)):
            return decision
        return self._read(key) or decision

    def forget(self, position: Position) -> bool:
        """Delete a decision and return whether there was one. The next run processes the record."""
        key = decision_key(self._consumer, position)
        found = objects.head(self._s3, self._bucket, key) is not None
        self._s3.delete_object(Bucket=self._bucket, Key=key)
        return found

    def shards(self) -> Iterator[str]:
        """Yield the shards that have stored objects."""
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
            raise FatalError(f"s3://{self._bucket}/{key} is not a quarantine decision: {error}") from error
        return decision

    def _prefix(self, shard: str) -> str:
        return f"{QUARANTINE}{self._consumer}/{shard}/"

    def _attempts_key(self, shard: str) -> str:
        return f"{self._prefix(shard)}attempts.json"

    def _request(self, key: str, body: Attempts | Decision) -> PutRequest:
        return {
            "Bucket": self._bucket,
            "Key": key,
            "Body": msgspec.json.encode(body),
            "ContentType": _JSON,
        }


def decision_key(consumer: str, position: Position) -> str:
    """Return the key of a decision: `quarantine/<consumer>/<shard>/records/<position>.json`."""
    return f"{QUARANTINE}{consumer}/{position.shard}/records/{token(position)}.json"
