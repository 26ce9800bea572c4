"""The failure store: one S3 object per failed record, keyed by consumer, date, partition key and position."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, unquote, urlencode

import msgspec

from stream_app.aws.objects import keys, put_new
from stream_app.errors import aws_error_code
from stream_app.model.record import Position
from stream_app.model.segment import utc_datetime
from stream_app.recovery.bounded import MAX_DEPTH, decoded, is_deep
from stream_app.recovery.dead_letters import DeadLetter, is_position

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import TagTypeDef

FAILURES = "failures/"
KIND = "stream-app.failure"
OPEN, REDRIVEN, PROCESSED, DISCARDED, EXPIRED = "open", "redriven", "processed", "discarded", "expired"
STATUSES = (OPEN, REDRIVEN, PROCESSED, DISCARDED, EXPIRED)
# The statuses that each status may replace, so that a late writer does not undo a newer status.
_AFTER = {
    REDRIVEN: frozenset({OPEN, DISCARDED}),
    DISCARDED: frozenset({OPEN, EXPIRED, REDRIVEN}),
    PROCESSED: frozenset({OPEN, REDRIVEN, DISCARDED}),
}

# S3 keys have at most 1024 bytes; a partition key of 256 characters can need 3072 when percent-encoded.
_FOLDER_LENGTH = 400
_HASH_LENGTH = 32
_GONE = frozenset({"404", "NoSuchKey", "NotFound"})
_JSON_SPACE = b" \t\r\n"
_STAMP = "%Y%m%dT%H%M%S"
_NAME = re.compile(r"(\d{8}T\d{6})\.(\d{3})Z-(.+)-(\d{1,128})-(\d{1,18})\.json", re.ASCII | re.DOTALL)
_PAYLOAD = b',"encoding":"json","payload":'


class FailureKey(NamedTuple):
    """The parts of a failure's key; `partition_key` is None if it was too long to be stored completely."""

    consumer: str
    partition_key: str | None
    arrived: int
    position: Position


class StoredFailure(msgspec.Struct, frozen=True, kw_only=True):
    """The stored object of one failed record. `data` returns its bytes; `encoding` is the format of `payload`.

    `encoding` is "json" (the payload is the record's own text), "base64", or "none" (the record had left the
    stream). `arrived` is in milliseconds since the epoch; `attempts` counts how often it was sent again. `origin` is
    the key of the dead letter's record (`hydrate.results`) if it named a range of records.
    """

    kind: str = KIND
    version: int = 1
    consumer: str
    stream: str
    shard: str
    sequence: str
    sub: int
    partition_key: str
    arrived: int
    arrived_at: str
    event: str | None
    schema: str | None
    stage: str
    code: str
    reason: str
    attempts: int = 0
    dead_letter: DeadLetter
    origin: str | None = None
    encoding: str
    payload: msgspec.Raw

    @property
    def data(self) -> bytes | None:
        """The record's bytes (JSON without surrounding white space), None if they had expired."""
        if self.encoding == "none":
            return None
        if self.encoding == "base64":
            return base64.b64decode(msgspec.json.decode(self.payload, type=str))
        return bytes(self.payload)

    @property
    def key(self) -> str:
        """The key of the object."""
        position = Position(self.shard, self.sequence, self.sub)
        return failure_key(self.consumer, position, self.partition_key, self.arrived)


def failure_key(consumer: str, position: Position, partition_key: str, arrived: int) -> str:
    """Return the key of a failed record, a function of its identity; `arrived` in milliseconds since the epoch.

    A partition key that is too long for an S3 key is truncated and ends in a hash of the complete key.
    """
    at = utc_datetime(arrived)
    name = f"{at:{_STAMP}}.{arrived % 1000:03d}Z-{position.shard}-{position.sequence}-{position.sub}.json"
    return f"{FAILURES}{consumer}/{at:%Y/%m/%d/%H}/{folder(partition_key)}/{name}"


def folder(partition_key: str) -> str:
    """Encode a partition key as one level of an S3 key: at most 400 characters, never `.` or `..`."""
    raw = partition_key.encode("utf-8", "surrogatepass")
    encoded = quote(raw, safe="").replace("~", "%7E")
    if not encoded.strip("."):
        encoded = encoded.replace(".", "%2E") or "~"
    if len(encoded) <= _FOLDER_LENGTH:
        return encoded
    head = encoded[: _FOLDER_LENGTH - _HASH_LENGTH - 1].rpartition("%")
    # An escape has three characters; a truncated one is removed.
    kept = head[0] if head[1] and len(head[2]) < 2 else "".join(head)
    return f"{kept}~{hashlib.sha256(raw).hexdigest()[:_HASH_LENGTH]}"


def parse_key(key: str) -> FailureKey | None:
    """Parse a key of the failure store, None if it is not one."""
    parts = key.removeprefix(FAILURES).split("/")
    found = _NAME.fullmatch(parts[-1])
    if not key.startswith(FAILURES) or len(parts) != 7 or found is None:
        return None
    stamp, milliseconds, shard, sequence, sub = found.groups()
    try:
        seconds = datetime.fromisoformat(f"{stamp}Z")
    except ValueError:
        return None
    arrived = int(seconds.timestamp()) * 1000 + int(milliseconds)
    return FailureKey(parts[0], _unfolded(parts[5]), arrived, Position(shard, sequence, int(sub)))


def _unfolded(name: str) -> str | None:
    if name == "~":
        return ""
    try:
        return None if "~" in name else unquote(name, errors="surrogatepass")
    except UnicodeError:
        return None


def failure(dead_letter: DeadLetter, data: bytes | None, origin: str | None = None) -> StoredFailure:
    """Build the object of a failed record from its dead letter and its bytes, None if they have expired."""
    encoding, payload = _payload(data)
    return StoredFailure(
        consumer=dead_letter.consumer,
        stream=dead_letter.stream,
        shard=dead_letter.shard,
        sequence=dead_letter.sequence,
        sub=dead_letter.sub,
        partition_key=dead_letter.partition_key,
        arrived=dead_letter.arrived,
        arrived_at=utc_datetime(dead_letter.arrived)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z"),
        event=dead_letter.event,
        schema=dead_letter.schema,
        stage=dead_letter.stage,
        code=dead_letter.code,
        reason=dead_letter.reason,
        dead_letter=dead_letter,
        origin=origin,
        encoding=encoding,
        payload=msgspec.Raw(payload),
    )


def _payload(data: bytes | None) -> tuple[str, bytes]:
    if data is None:
        return "none", b"null"
    try:
        decoded(data)
        # Keep the original text: a redrive sends the original bytes.
        return "json", data.strip(_JSON_SPACE)
    except ValueError:
        return "base64", msgspec.json.encode(base64.b64encode(data).decode())


def put(s3: S3Client, bucket: str, stored: StoredFailure) -> bool:
    """Create the failure's object with its tag `status`; False if it exists, in which case it is unchanged.

    So repeated hydration never overwrites a later status. Raises boto3 errors and TransientError.
    """
    status = EXPIRED if stored.encoding == "none" else OPEN
    request = {
        "Bucket": bucket,
        "Key": stored.key,
        "Body": msgspec.json.encode(stored),
        "ContentType": "application/json",
        "Tagging": urlencode({"status": status}),
    }
    return put_new(s3, request)


def load(body: bytes) -> StoredFailure:
    """Parse a stored failure. Raises ValueError if it is malformed."""
    try:
        stored = _deep(body) if is_deep(body) else decoded(body, StoredFailure)
    except ValueError as error:
        raise ValueError(f"not a stored failure: {error}") from error
    if stored.kind != KIND:
        raise ValueError(f"not a stored failure: {stored.kind[:40]!r}")
    dead_letter = stored.dead_letter
    if not is_position(stored.sequence, stored.sub, stored.arrived) or not is_position(
        dead_letter.sequence, dead_letter.sub, dead_letter.arrived
    ):
        raise ValueError("not a stored failure: its position or arrival time is not valid")
    try:
        stored.data  # noqa: B018  # raises ValueError for malformed base64
    except ValueError:
        raise ValueError("not a stored failure: its payload is malformed") from None
    return stored


def _deep(body: bytes) -> StoredFailure:
    """Parse a failure whose JSON payload exceeds the depth limit; earlier versions stored such payloads."""
    head, found, payload = body.partition(_PAYLOAD)
    if not found or not payload.endswith(b"}"):
        raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
    stored = decoded(head + found + b"null}", StoredFailure)
    return msgspec.structs.replace(stored, payload=msgspec.Raw(payload[:-1]))


def status(s3: S3Client, bucket: str, key: str) -> str | None:
    """Return the tag `status` of a failure's object, None if either is missing. Raises boto3 errors."""
    try:
        tags = s3.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
    except Exception as error:
        if aws_error_code(error) in _GONE:
            return None
        raise
    return next((tag["Value"] for tag in tags if tag["Key"] == "status"), None)


def advance_status(s3: S3Client, bucket: str, key: str, new: str) -> bool:
    """Set a failure's tag `status` if the current one allows it, else return False; other tags are kept.

    Not atomic, because S3 has no conditional tagging: the ledger is authoritative and the tag follows it. Also False
    if the object is missing. Raises boto3 errors.
    """
    try:
        tags = s3.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
        now = next((tag["Value"] for tag in tags if tag["Key"] == "status"), OPEN)
        if now not in _AFTER[new]:
            return False
        others = [tag for tag in tags if tag["Key"] != "status"]
        tags_after: list[TagTypeDef] = [*others, {"Key": "status", "Value": new}]
        s3.put_object_tagging(Bucket=bucket, Key=key, Tagging={"TagSet": tags_after})
    except Exception as error:
        if aws_error_code(error) in _GONE:
            return False
        raise
    return True


def failure_keys(
    s3: S3Client, bucket: str, consumer: str, since: datetime | None = None, until: datetime | None = None
) -> Iterator[str]:
    """Iterate over the keys of a consumer's failures that arrived in [since, until), UTC, by arrival hour."""
    prefix = f"{FAILURES}{consumer}/"
    start = f"{prefix}{since:%Y/%m/%d/%H}/" if since else ""
    for key in keys(s3, bucket, prefix, start):
        found = parse_key(key)
        if found is None or (since and utc_datetime(found.arrived) < since):
            continue
        if until and utc_datetime(found.arrived) >= until:
            if key[len(prefix) :][:13] > f"{until:%Y/%m/%d/%H}":
                return
            continue
        yield key
