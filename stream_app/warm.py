"""Warm-up of a consumer before its first record: connections, compiled code and caches."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from anomaly.detector import AnyArray
from stream_app.aws.clients import ClientFactory
from stream_app.event_loading import load_registry
from stream_app.model.record import Batch
from stream_app.model.records import Payloads
from stream_app.pipeline.decode import EncodedRows
from stream_app.pipeline.readers.columns import build
from stream_app.pipeline.readers.payload_checks import MAX_DEPTH, problem, scan_payloads
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.schema_resolution import resolve_schema
from stream_app.pipeline.score import score
from stream_app.pipeline.state.deduplication import id_hashes
from stream_app.pipeline.state.event_state import EventState
from stream_app.pipeline.values.schema import BOOLEAN, FLOAT, INTEGER, SINGLE, TEXT, TIME_MS, TIME_US
from stream_app.settings import Settings
from stream_app.sinks.parquet import encode, to_table


def warm_up(settings: Settings, registry: Registry, client: ClientFactory) -> None:
    """Send a small request to each service, compile all loops, and encode an empty file of each event type.

    A client's first request takes a hundred times as long as its second: endpoint rules, credentials, connection.
    Errors are ignored here and handled at the first real request.
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
    warm_pipeline(registry)
    for codec in registry.codecs.values():
        empty = resolve_schema(EncodedRows(codec.event.name), codec, np.zeros(0, np.int64)).passed
        encode(to_table(empty, [], "")[0], {})


def warm_detectors(registry: Registry) -> None:
    """Score two rows with a temporary detector of each event type, to compile its loops.

    Compiled code is cached on disk: the first process takes seconds, later ones half a second.
    """
    for codec in registry.codecs.values():
        event = codec.event
        if event.detector is None or not event.features:
            continue
        columns: dict[str, AnyArray] = {name: np.zeros(2) for name in event.features}
        columns["time"] = np.arange(2).astype("datetime64[ms]")
        columns[event.key] = np.array(["warm-up", "warm-up"], dtype=object)
        with suppress(Exception):
            score(Batch(event.name, columns, np.arange(2)), event, event.detector(event.features))


def warm_pipeline(registry: Registry) -> None:
    """Run the compiled loops of the pipeline on an empty row, without calling user code."""
    device = np.zeros(1, dtype=np.int64)
    for codec in registry.codecs.values():
        row = tuple(_EMPTY_VALUES.get(field.kind) for field in codec.schema.fields)
        columns = build([row], codec.schema.fields, codec.event.required)
        batch, state = Batch(codec.event.name, columns, device), EventState(codec.event, 1)
        state.recent_ids.undo(
            state.recent_ids.check_and_add(device, id_hashes(batch[codec.event.key]), device == 0)
        )
        with suppress(Exception):  # a missing value does not fit a column of required numbers
            if state.previous is not None:
                state.previous.columns(device, batch, device == 0)
            if state.windows is not None:
                state.windows.add(device, batch)
            if state.checks is not None:
                state.checks.flag(device, batch)
    for payload in (b"{}", b"[" * (MAX_DEPTH + 1)):
        scan_payloads(Payloads.of([payload]))
        problem(payload)


_EMPTY_VALUES = {FLOAT: 0.0, SINGLE: 0.0, INTEGER: 0, BOOLEAN: False, TEXT: "", TIME_MS: 0, TIME_US: 0}


if __name__ == "__main__":
    _registry = load_registry()
    warm_detectors(_registry)
    warm_pipeline(_registry)
