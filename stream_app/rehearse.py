"""What the shard host does before it forks, so that its forks need not: a shard's beginning, with nothing in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
from botocore.exceptions import ClientError

from stream_app.consumer.state import S3Snapshots, lineage_of
from stream_app.errors import FatalError
from stream_app.pipeline.flow import process
from stream_app.pipeline.registry import Codec, Registry
from stream_app.pipeline.schema import BOOLEAN, FLOAT, INTEGER, SINGLE, TIME_MS, TIME_US
from stream_app.pipeline.state import ShardState
from stream_app.record import Record
from stream_app.settings import Settings
from stream_app.sinks.parquet import encode, to_table

_REHEARSALS = 8


def rehearse(settings: Settings, registry: Registry, client: Callable[[str], Any]) -> None:
    """What a shard does first, some times over with made-up rows: look for its snapshot and parents, process, encode.

    Before the shard host forks: what is loaded or compiled at first use is then shared, and Python rewrites the
    bytecode of what it runs often. Nothing is written anywhere. A service that does not answer is not asked again.
    """

    def snapshot() -> None:
        S3Snapshots(client("s3"), settings.bucket, settings.application).load("warm-up", "warm-up")

    def parents() -> None:
        lineage_of(client("kinesis"), settings.stream)("warm-up")

    asks: list[Callable[[], None]] = [snapshot, parents]
    for _ in range(_REHEARSALS):
        asks = [ask for ask in asks if _answered(ask)]
        for codec in registry.codecs.values():
            with suppress(Exception):
                _process_and_encode(registry, codec, settings.max_record_bytes)


def _answered(ask: Callable[[], None]) -> bool:
    try:
        ask()
    except (ClientError, FatalError):  # refused, or there is no such shard: an answer
        return True
    except Exception:
        return False
    return True


def _process_and_encode(registry: Registry, codec: Codec, max_bytes: int) -> None:
    now = time.time_ns() // 1_000_000
    # Values that are missing keep every rule; those that are made up break some, which is a way to be known too.
    bodies = [_made_up(codec, now, f"warm-up {at}", bare=at != 1) for at in range(3)]
    records = [Record(msgspec.json.encode(body), "warm-up", str(at), now) for at, body in enumerate(bodies)]
    state = ShardState({name: other.event for name, other in registry.codecs.items()}, len(records))
    for batch in process(records, registry, state, max_bytes).passed.values():
        encode(to_table(batch, records, "warm-up")[0], {})
    state.restore(state.snapshot())


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
