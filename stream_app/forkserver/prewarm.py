"""What the shard host does before it forks, so that its forks need not: a shard's beginning, with nothing in it."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, redirect_stderr, suppress
from contextvars import copy_context
from dataclasses import replace
from datetime import UTC, datetime
from typing import IO, Any, cast
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

_REHEARSALS = 8
_LAST_HASH = 2**128 - 1
_WRITTEN = ("s3", "sqs", "dynamodb")


def prewarm(dependencies: ShardDependencies, client: Callable[[str], Any]) -> None:
    """A shard's life some times over with made-up rows: look for its snapshot and parents, then all that KCL says.

    Before the shard host forks: what is loaded or compiled at first use is then shared, and Python rewrites the
    bytecode of what it runs often. Nothing is written anywhere: requests that would are made up to the point where
    they are sent. A service that does not answer is not asked again.
    """
    settings, registry = dependencies.settings, dependencies.registry
    sending: Unsent | None = None
    with suppress(Exception):  # as in `warm_up`, errors are left to the first real use
        sending = Unsent(client(service) for service in _WRITTEN)

    def snapshot() -> None:
        S3Snapshots(client("s3"), settings.bucket, settings.application).load("warm-up", "warm-up")

    def parents() -> None:
        lineage_of(client("kinesis"), settings.stream)("warm-up")

    asks: list[Callable[[], None]] = [snapshot, parents]
    for _ in range(_REHEARSALS):
        asks = [ask for ask in asks if _answered(ask)]
        for codec in registry.codecs.values():
            with suppress(Exception):
                live(dependencies, codec, sending if asks else None)


def _answered(ask: Callable[[], None]) -> bool:
    try:
        ask()
    except (ClientError, FatalError):  # refused, or there is no such shard: an answer
        return True
    except Exception:
        return False
    return True


def live(dependencies: ShardDependencies, codec: Codec, sending: Unsent | None) -> None:
    """The life of a shard of three segments with rows of one event type, from the first word of KCL to the last.

    Where `sending` does not hold requests back, rows are only processed. Raises what the world's parts raise.
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
    daemon = Daemon([Initialize("warm-up", "TRIM_HORIZON", 0), *_spoken(segments), ShardEnded()])
    # Log lines go to stderr, and bear the shard's name from now on.
    with sending.held(), closing(daemon), redirect_stderr(io.StringIO()):
        copy_context().run(
            serve, BatchCoalescer(ShardConsumer(apart)), cast("Any", daemon.stdin), cast("Any", daemon)
        )


def _spoken(segments: Iterable[Sequence[Record]]) -> Iterator[Message]:
    """What KCL says on the way; a commit of what is complete in between."""
    for records in segments:
        yield ProcessRecords([], 0)
        yield ProcessRecords(records, 0)
        yield ShutdownRequested()


class Daemon:
    """The daemon's side of a child's pipes: says the next message after each answer, and yes to each checkpoint."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self._messages = iter(messages)
        reading, writing = os.pipe()
        self.stdin: IO[bytes] = os.fdopen(reading, "rb")
        self._out = os.fdopen(writing, "wb", buffering=0)
        self._say(next(self._messages, None))

    def write(self, line: bytes) -> None:
        """What the child writes to its stdout."""
        asked = line.lstrip().startswith(b'{"action":"checkpoint"')
        self._say(CheckpointReply() if asked else next(self._messages, None))

    def flush(self) -> None:
        """Nothing is held."""

    def close(self) -> None:
        """Both ends; safe to repeat."""
        self.stdin.close()
        self._out.close()

    def _say(self, message: Message | None) -> None:
        if message is None:
            self._out.close()
        else:
            self._out.write(msgspec.json.encode(message) + b"\n")


class Unsent:
    """Holds requests of boto3 clients back at the last moment, and answers them with success.

    Its handlers stay with the clients and then do nothing: to take them out would empty what boto3 remembers.
    """

    def __init__(self, clients: Iterable[Any]) -> None:
        self._holding = False
        for client in clients:
            client.meta.events.register("before-send", self._answer)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing is sent in this block, in no thread."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False

    def _answer(self, request: Any, **_: Any) -> AWSResponse | None:
        if not self._holding:
            return None
        return AWSResponse(request.url, 200, HTTPHeaders(), _Reply(request.body))


class _Reply:
    """What is read of a connection: of a batch, that each entry was taken."""

    def __init__(self, request: Any) -> None:
        self._request = request

    def stream(self) -> Iterator[bytes]:
        asked: dict[str, Any] = {}
        with suppress(TypeError, ValueError):  # Parquet, a manifest, nothing
            asked = msgspec.json.decode(self._request, type=dict[str, Any])
        if "Entries" in asked:
            yield msgspec.json.encode({"Successful": [{"Id": entry["Id"]} for entry in asked["Entries"]]})


def _records(codec: Codec, now_ms: int, turn: int) -> list[Record]:
    """Three rows as devices send them, every other time in the envelope of the bus.

    Values that are missing keep every rule; those that are made up break some, which is a way to be known too.
    """
    bodies = [_made_up(codec, now_ms, f"warm-up {turn} {at}", bare=at != 1) for at in range(3)]
    name, told = codec.event.name, datetime.fromtimestamp(now_ms / 1_000, UTC)
    if turn % 2:
        texts = [msgspec.json.encode({"event": name, **body}) for body in bodies]
    else:
        texts = [
            envelope(name, "warm-up", body, id=str(uuid4()), time=told, region="warm-up", account="0")
            for body in bodies
        ]
    return [Record(text, "warm-up", str(10 * turn + at), now_ms) for at, text in enumerate(texts)]


def _made_up(codec: Codec, now_ms: int, text: str, bare: bool) -> dict[str, Any]:
    """An event as JSON has it; `bare`: without the values that may be missing."""
    samples = {FLOAT: 1.5, SINGLE: 1.5, INTEGER: 1, BOOLEAN: True, TIME_MS: now_ms, TIME_US: now_ms * 1_000}
    required = {*codec.event.required, codec.event.key}
    fields = {
        field.name: samples.get(field.kind, text)
        for field in codec.schema.fields
        if not field.nullable or field.name in required or not bare
    }
    return {**fields, codec.event.key: "warm-up"}
