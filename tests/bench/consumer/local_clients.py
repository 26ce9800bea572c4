"""Clients that write to a folder instead of AWS: what is measured is the consumer, not an emulation's network.

Everything up to the call is the consumer's own work and is counted (Parquet, digests, manifests, compressed
snapshots, the bodies of dead letters and alerts), and so is the write to a file. Not counted is what botocore does
with a request: signing, HTTP, TLS.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from botocore.exceptions import ClientError


class Objects:
    """As much of S3 as the consumer uses."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._metadata: dict[str, dict[str, Any]] = {}
        self._versions: dict[str, int] = {}

    def _path(self, key: str) -> Path:
        return self._folder / quote(key, safe="=.-")

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, **options: Any) -> dict[str, Any]:
        """Writes conditionally, as S3 does, if `IfNoneMatch` or `IfMatch` is given."""
        path, known = self._path(Key), Key in self._metadata
        match = options.get("IfMatch")
        if (options.get("IfNoneMatch") == "*" and known) or (match and match != self._etag(Key)):
            raise _error("PreconditionFailed", 412, "PutObject")
        path.write_bytes(Body)
        self._metadata[Key] = options.get("Metadata", {})
        self._versions[Key] = self._versions.get(Key, 0) + 1
        return {}

    def _etag(self, key: str) -> str:
        return f"{key}.{self._versions.get(key, 0)}" if self._path(key).exists() else ""

    def head_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        """Metadata of what was put."""
        if Key not in self._metadata:
            raise _error("404", 404, "HeadObject")
        return {"Metadata": self._metadata[Key], "ETag": self._etag(Key)}

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        """Bytes of what was put, by this process or one before it."""
        if not self._path(Key).exists():
            raise _error("NoSuchKey", 404, "GetObject")
        return {"Body": io.BytesIO(self._path(Key).read_bytes()), "ETag": self._etag(Key)}

    def delete_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        """An absent one is no error."""
        self._metadata.pop(Key, None)
        self._path(Key).unlink(missing_ok=True)
        return {}

    def get_paginator(self, _operation: str) -> Objects:
        """Nothing is ever listed: no alert was left by an earlier consumer."""
        return self

    def paginate(self, **_: Any) -> list[dict[str, Any]]:
        """No page."""
        return []


class Lines:
    """A queue and a bus: entries become lines of a file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")

    def send_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:
        """Ten messages at most, all taken."""
        self._add([entry["MessageBody"] for entry in Entries])
        return {"Successful": [{"Id": entry["Id"]} for entry in Entries]}

    def put_events(self, *, Entries: list[dict[str, Any]]) -> dict[str, Any]:
        """Ten entries at most, all taken."""
        self._add([entry["Detail"] for entry in Entries])
        return {"FailedEntryCount": 0, "Entries": [{"EventId": "0"} for _ in Entries]}

    def get_queue_attributes(self, **_: Any) -> dict[str, Any]:
        """There is nothing to warm up."""
        return {}

    def describe_event_bus(self, **_: Any) -> dict[str, Any]:
        """There is nothing to warm up."""
        return {}

    def _add(self, bodies: list[str]) -> None:
        self._file.write("".join(f"{body}\n" for body in bodies).encode())
        self._file.flush()


class Stream:
    """A stream of one shard without parents."""

    def list_shards(self, **_: Any) -> dict[str, Any]:
        """All hash keys are the one shard's."""
        whole = {"StartingHashKey": "0", "EndingHashKey": str(2**128 - 1)}
        return {"Shards": [{"ShardId": "shardId-000000000000", "HashKeyRange": whole}]}


class Clients:
    """A maker of clients, as `stream_app.app.clients` gives one."""

    def __init__(self, folder: Path) -> None:
        self._made: Mapping[str, Any] = {
            "s3": Objects(folder),
            "sqs": Lines(folder / "dead-letters.jsonl"),
            "events": Lines(folder / "alerts.jsonl"),
            "kinesis": Stream(),
        }

    def __call__(self, service: str) -> Any:
        """The client of a service."""
        return self._made[service]

    def disconnect(self) -> None:
        """There are no connections that a fork might share."""


def local(folder: Path) -> Callable[..., Clients]:
    """What can stand for `stream_app.app.clients`."""
    folder.mkdir(parents=True, exist_ok=True)
    return lambda *_, **__: Clients(folder)


def _error(code: str, status: int, operation: str) -> ClientError:
    response: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, operation)


def dead_letters(folder: Path) -> list[dict[str, Any]]:
    """What was parked, in order."""
    path = folder / "dead-letters.jsonl"
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
