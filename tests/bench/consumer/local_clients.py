"""Clients that write to a folder instead of AWS, so that no emulated network is measured.

The consumer's work before each call is included (Parquet, digests, manifests, compressed snapshots, the bodies of
dead letters and alerts), and so is writing the file. The work of botocore is not: signing, HTTP and TLS.
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
    """The subset of the S3 client that the consumer uses."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._metadata: dict[str, dict[str, Any]] = {}
        self._versions: dict[str, int] = {}

    def _path(self, key: str) -> Path:
        return self._folder / quote(key, safe="=.-")

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, **options: Any) -> dict[str, Any]:
        """Write an object; conditional, as in S3, if `IfNoneMatch` or `IfMatch` is given."""
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
        """Return the metadata of an object."""
        if Key not in self._metadata:
            raise _error("404", 404, "HeadObject")
        return {"Metadata": self._metadata[Key], "ETag": self._etag(Key)}

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        """Return the body of an object written by this or an earlier process."""
        if not self._path(Key).exists():
            raise _error("NoSuchKey", 404, "GetObject")
        return {"Body": io.BytesIO(self._path(Key).read_bytes()), "ETag": self._etag(Key)}

    def delete_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        """Delete an object; a missing object is not an error."""
        self._metadata.pop(Key, None)
        self._path(Key).unlink(missing_ok=True)
        return {}

    def get_paginator(self, _operation: str) -> Objects:
        """Return a paginator without pages: there are no pending alerts of an earlier consumer."""
        return self

    def paginate(self, **_: Any) -> list[dict[str, Any]]:
        """Return no pages."""
        return []


class Lines:
    """SQS and EventBridge clients that append each entry to a file as a line."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")

    def send_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:
        """Accept all messages."""
        self._add([entry["MessageBody"] for entry in Entries])
        return {"Successful": [{"Id": entry["Id"]} for entry in Entries]}

    def put_events(self, *, Entries: list[dict[str, Any]]) -> dict[str, Any]:
        """Accept all entries."""
        self._add([entry["Detail"] for entry in Entries])
        return {"FailedEntryCount": 0, "Entries": [{"EventId": "0"} for _ in Entries]}

    def get_queue_attributes(self, **_: Any) -> dict[str, Any]:
        """Return an empty response; there is no connection to warm up."""
        return {}

    def describe_event_bus(self, **_: Any) -> dict[str, Any]:
        """Return an empty response; there is no connection to warm up."""
        return {}

    def _add(self, bodies: list[str]) -> None:
        self._file.write("".join(f"{body}\n" for body in bodies).encode())
        self._file.flush()


class Stream:
    """A Kinesis client for a stream with one shard and no parent shards."""

    def list_shards(self, **_: Any) -> dict[str, Any]:
        """Return one shard that covers all hash keys."""
        whole = {"StartingHashKey": "0", "EndingHashKey": str(2**128 - 1)}
        return {"Shards": [{"ShardId": "shardId-000000000000", "HashKeyRange": whole}]}


class Clients:
    """A client factory, as returned by `stream_app.app.clients`."""

    def __init__(self, folder: Path) -> None:
        self._clients: Mapping[str, Any] = {
            "s3": Objects(folder),
            "sqs": Lines(folder / "dead-letters.jsonl"),
            "events": Lines(folder / "alerts.jsonl"),
            "kinesis": Stream(),
        }

    def __call__(self, service: str) -> Any:
        """Return the client for a service."""
        return self._clients[service]

    def disconnect(self) -> None:
        """Do nothing; there are no connections that a fork could share."""


def local(folder: Path) -> Callable[..., Clients]:
    """Return a replacement for `stream_app.app.clients`."""
    folder.mkdir(parents=True, exist_ok=True)
    return lambda *_, **__: Clients(folder)


def _error(code: str, status: int, operation: str) -> ClientError:
    response: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, operation)


def dead_letters(folder: Path) -> list[dict[str, Any]]:
    """Return the dead letters in the order of sending."""
    path = folder / "dead-letters.jsonl"
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
