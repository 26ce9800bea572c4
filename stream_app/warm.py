"""What a consumer does before its first record, so that the first record need not wait for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
from botocore.exceptions import ClientError

from stream_app.consumer.state import S3Snapshots, lineage_of
from stream_app.errors import FatalError
from stream_app.pipeline.conform import conform
from stream_app.pipeline.decode import Encoded
from stream_app.pipeline.flow import process
from stream_app.pipeline.registry import Codec, Registry
from stream_app.pipeline.schema import BOOLEAN, FLOAT, INTEGER, SINGLE, TIME_MS, TIME_US
from stream_app.pipeline.score import score
from stream_app.pipeline.state import ShardState
from stream_app.record import Batch, Record
from stream_app.settings import Settings
from stream_app.sinks.parquet import encode, to_table

_REHEARSALS = 8


def warm_up(settings: Settings, registry: Registry, client: Callable[[str], Any]) -> None:
    """Ask each service something small, and encode an empty file of each event type.

    A client's first request costs a hundred times its second: rules of endpoints, credentials, connections. Errors
    are left to the first real use, which knows what to do about them.
    """
    with suppress(Exception):
        client("s3").head_object(Bucket=settings.bucket, Key=f"state/{settings.application}/warm-up")
    with suppress(Exception):
        client("sqs").get_queue_attributes(QueueUrl=settings.dead_letter_queue, AttributeNames=["QueueArn"])
    if settings.latest_table:
        with suppress(Exception):
            client("dynamodb").get_item(TableName=settings.latest_table, Key={"device": {"S": "warm-up"}})
    if settings.bus:
        with suppress(Exception):
            client("events").describe_event_bus(Name=settings.bus)
    warm_detectors(registry)
    for codec in registry.codecs.values():
        nothing = conform(Encoded(codec.event.name), codec, []).passed
        encode(to_table(nothing, [], "")[0], {})


def warm_detectors(registry: Registry) -> None:
    """Score two rows with a throwaway detector of each event type, so that compiled loops are compiled.

    What is compiled is kept on disk: the first process ever takes some seconds, those after it half a second.
    """
    for codec in registry.codecs.values():
        event = codec.event
        if event.detector is None or not event.features:
            continue
        columns: dict[str, Any] = {name: np.zeros(2) for name in event.features}
        columns["time"] = np.arange(2).astype("datetime64[ms]")
        columns[event.key] = np.array(["warm-up", "warm-up"], dtype=object)
        with suppress(Exception):
            score(Batch(event.name, columns, np.arange(2)), event, event.detector(event.features))


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


if __name__ == "__main__":
    warm_detectors(Registry.load())
