"""Warms up the fork server: runs a shard with generated rows, so that forks share what is loaded and compiled."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, redirect_stderr, suppress
from contextvars import copy_context
from dataclasses import replace
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, cast
from uuid import uuid4

import msgspec
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ClientError

from stream_app.aws.request_sizes import envelope
from stream_app.consumer.dependencies import ShardDependencies
from stream_app.consumer.protocol.batch_coalescer import BatchCoalescer
from stream_app.consumer.protocol.multilang import (
    CheckpointReply,
    Initialize,
    Message,
    ProcessRecords,
    ShardEnded,
    ShutdownRequested,
    serve,
)
from stream_app.consumer.shard import ShardConsumer
from stream_app.consumer.snapshots import Lineage, S3Snapshots, lineage_of
from stream_app.errors import FatalError
from stream_app.model.record import Record
from stream_app.pipeline.flow import process
from stream_app.pipeline.registry import Codec
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.pipeline.values.schema import BOOLEAN, FLOAT, INTEGER, SINGLE, TIME_MS, TIME_US

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest
    from botocore.client import BaseClient

    from stream_app.aws.clients import ClientFactory
    from stream_app.consumer.protocol.line_reader import Source

_RUNS = 8
_LAST_HASH = 2**128 - 1
_WRITTEN = ("s3", "sqs", "dynamodb")


def prewarm(dependencies: ShardDependencies, client: ClientFactory) -> None:
    """Run a shard several times with generated rows, from its snapshot and parents to the end of the shard.

    It runs before the first fork. What is loaded or compiled at first use is then shared, and Python has specialized
    the bytecode of hot code. Nothing is written: requests that write are built and signed, but not sent. A service
    that does not answer is not called again.
    """
    settings, registry = dependencies.settings, dependencies.registry
    sending: BlockedRequests | None = None
    with suppress(Exception):  # as in `warm_up`, errors are reported by the first real use
        sending = BlockedRequests(client(service) for service in _WRITTEN)

    def snapshot() -> None:
        S3Snapshots(client("s3"), settings.bucket, settings.application).load("warm-up", "warm-up")

    def parents() -> None:
        lineage_of(client("kinesis"), settings.stream)("warm-up")

    requests: list[Callable[[], None]] = [snapshot, parents]
    for _ in range(_RUNS):
        requests = [request for request in requests if _is_reachable(request)]
        for codec in registry.codecs.values():
            with suppress(Exception):
                run_shard(dependencies, codec, sending if requests else None)


def _is_reachable(request: Callable[[], None]) -> bool:
    try:
        request()
    except (ClientError, FatalError):  # access denied or no such shard: the service answers
        return True
    except Exception:
        return False
    return True


def run_shard(dependencies: ShardDependencies, codec: Codec, sending: BlockedRequests | None) -> None:
    """Run a shard of three segments with rows of one event type, from initialize to shardEnded.

    Without `sending`, which blocks requests, rows are only processed. Raises what the dependencies raise.
    """
    now = time.time_ns() // 1_000_000
    if sending is None:
        events = {name: other.event for name, other in dependencies.registry.codecs.items()}
        records = _records(codec, now, 0)
        process(
            records,
            dependencies.registry,
            ShardState(events, len(records)),
            dependencies.settings.max_record_bytes,
        )
        return
    apart = replace(dependencies, lineage=lambda _: Lineage((), 0, _LAST_HASH), isolation=None)
    segments = [
        _records(codec, now + 1_000 * dependencies.settings.segment_seconds * at, at) for at in range(3)
    ]
    daemon = FakeDaemon([Initialize("warm-up", "TRIM_HORIZON", 0), *_messages(segments), ShardEnded()])
    # Log lines, which are discarded, are bound to the shard in a context of their own.
    with sending.held(), closing(daemon), redirect_stderr(io.StringIO()):
        stdin, stdout = cast("Source", daemon.stdin), cast("IO[bytes]", daemon)
        copy_context().run(serve, BatchCoalescer(ShardConsumer(apart)), stdin, stdout)


def _messages(segments: Iterable[Sequence[Record]]) -> Iterator[Message]:
    """Yield the messages of KCL; each segment ends with a commit."""
    for records in segments:
        yield ProcessRecords([], 0)
        yield ProcessRecords(records, 0)
        yield ShutdownRequested()


class FakeDaemon:
    """The daemon's end of the pipes: sends the next message after each response and confirms checkpoints."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self._messages = iter(messages)
        reading, writing = os.pipe()
        self.stdin: IO[bytes] = os.fdopen(reading, "rb")
        self._out = os.fdopen(writing, "wb", buffering=0)
        self._say(next(self._messages, None))

    def write(self, line: bytes) -> None:
        """Receive a line that the child writes to stdout."""
        asked = line.lstrip().startswith(b'{"action":"checkpoint"')
        self._say(CheckpointReply() if asked else next(self._messages, None))

    def flush(self) -> None:
        """Do nothing: there is no buffer."""

    def close(self) -> None:
        """Close both pipes; idempotent."""
        self.stdin.close()
        self._out.close()

    def _say(self, message: Message | None) -> None:
        if message is None:
            self._out.close()
        else:
            self._out.write(msgspec.json.encode(message) + b"\n")


class BlockedRequests:
    """Intercepts requests of boto3 clients before they are sent, and answers them with success.

    The handlers remain registered and then do nothing, because removing them would clear the caches of boto3.
    """

    def __init__(self, clients: Iterable[BaseClient]) -> None:
        self._holding = False
        for client in clients:
            # The stubs omit that a handler may return the response.
            client.meta.events.register("before-send", self._answer)  # type: ignore[arg-type]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Intercept the requests of all threads in this block."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False

    def _answer(self, request: AWSPreparedRequest, **_: object) -> AWSResponse | None:
        if not self._holding:
            return None
        return AWSResponse(request.url, 200, HTTPHeaders(), _FakeReply(request.body))


class _BatchEntry(msgspec.Struct):
    Id: str


class _BatchRequest(msgspec.Struct):
    Entries: list[_BatchEntry] | None = None


class _FakeReply:
    """The body of an answer; for a batch request it reports success for each entry."""

    def __init__(self, body: object) -> None:
        self._body = body

    def stream(self) -> Iterator[bytes]:
        if not isinstance(self._body, bytes | bytearray | str):
            return
        with suppress(ValueError):  # no JSON body, such as Parquet
            request = msgspec.json.decode(self._body, type=_BatchRequest)
            if request.Entries is not None:
                yield msgspec.json.encode({"Successful": request.Entries})


def _records(codec: Codec, now_ms: int, turn: int) -> list[Record]:
    """Return three rows as devices send them, in every other turn in the envelope of EventBridge.

    Missing values satisfy all rules; generated values break some, so that failing rows are warmed up as well.
    """
    bodies = [_sample_event(codec, now_ms, f"warm-up {turn} {at}", bare=at != 1) for at in range(3)]
    name, told = codec.event.name, datetime.fromtimestamp(now_ms / 1_000, UTC)
    if turn % 2:
        texts = [msgspec.json.encode({"event": name, **body}) for body in bodies]
    else:
        texts = [
            envelope(name, "warm-up", body, id=str(uuid4()), time=told, region="warm-up", account="0")
            for body in bodies
        ]
    return [Record(text, "warm-up", str(10 * turn + at), now_ms) for at, text in enumerate(texts)]


def _sample_event(codec: Codec, now_ms: int, text: str, bare: bool) -> dict[str, object]:
    """Return an event as JSON values; with `bare`, without values that may be missing."""
    samples = {FLOAT: 1.5, SINGLE: 1.5, INTEGER: 1, BOOLEAN: True, TIME_MS: now_ms, TIME_US: now_ms * 1_000}
    required = {*codec.event.required, codec.event.key}
    fields = {
        field.name: samples.get(field.kind, text)
        for field in codec.schema.fields
        if not field.nullable or field.name in required or not bare
    }
    return {**fields, codec.event.key: "warm-up"}
