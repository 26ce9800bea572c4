"""What the shard host does before it forks, so that its forks need not: a shard's beginning, with nothing in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ClientError

from stream_app.consumer.shard import World
from stream_app.consumer.state import S3Snapshots, lineage_of
from stream_app.errors import FatalError
from stream_app.pipeline.flow import process
from stream_app.pipeline.registry import Codec
from stream_app.pipeline.schema import BOOLEAN, FLOAT, INTEGER, SINGLE, TIME_MS, TIME_US
from stream_app.pipeline.state import ShardState
from stream_app.record import Record
from stream_app.sinks.columns import without_helpers
from stream_app.sinks.segment import Segment, store

_REHEARSALS = 8
_WRITTEN = ("s3", "sqs", "dynamodb")


def rehearse(world: World, client: Callable[[str], Any]) -> None:
    """A shard's life some times over with made-up rows: look for its snapshot and parents, process, store, commit.

    Before the shard host forks: what is loaded or compiled at first use is then shared, and Python rewrites the
    bytecode of what it runs often. Nothing is written anywhere: requests that would are made up to the point where
    they are sent. A service that does not answer is not asked again.
    """
    settings, registry = world.settings, world.registry
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
                live(world, codec, sending if asks else None)


def _answered(ask: Callable[[], None]) -> bool:
    try:
        ask()
    except (ClientError, FatalError):  # refused, or there is no such shard: an answer
        return True
    except Exception:
        return False
    return True


def live(world: World, codec: Codec, sending: Unsent | None) -> None:
    """A segment of three made-up rows of one event type; stored and committed where `sending` holds requests back.

    Raises what the world's parts raise.
    """
    registry, now = world.registry, time.time_ns() // 1_000_000
    # Values that are missing keep every rule; those that are made up break some, which is a way to be known too.
    bodies = [_made_up(codec, now, f"warm-up {at}", bare=at != 1) for at in range(3)]
    records = [Record(msgspec.json.encode(body), "warm-up", str(at), now) for at, body in enumerate(bodies)]
    state = ShardState({name: other.event for name, other in registry.codecs.items()}, len(records))
    found = process(records, registry, state, world.settings.max_record_bytes)
    passed = {name: without_helpers(batch) for name, batch in found.passed.items()}
    settings = world.settings
    segment = Segment(
        settings.application, settings.stream, "warm-up", records, passed, found.failed, found.repeated
    )
    snapshot = state.snapshot()
    if sending is not None:
        with sending.held():
            _store(world, segment, snapshot)
    state.restore(snapshot)


def _store(world: World, segment: Segment, snapshot: bytes) -> None:
    """The effects of a segment and a commit, in their order."""
    segment = store(segment, world.sinks)
    if segment.failed:
        world.park(segment)
    world.snapshots.save(segment.shard, "warm-up", snapshot)
    world.snapshots.forget(segment.shard, "warm-up")


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


def _made_up(codec: Codec, now_ms: int, text: str, bare: bool) -> dict[str, Any]:
    """An event as JSON has it; `bare`: without the values that may be missing."""
    samples = {FLOAT: 1.5, SINGLE: 1.5, INTEGER: 1, BOOLEAN: True, TIME_MS: now_ms, TIME_US: now_ms * 1_000}
    required = {*codec.event.required, codec.event.key}
    fields = {
        field.name: samples.get(field.kind, text)
        for field in codec.schema.fields
        if not field.nullable or field.name in required or not bare
    }
    return {"event": codec.event.name, **fields, codec.event.key: "warm-up"}
