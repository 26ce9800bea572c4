"""What a consumer does before its first record, so that the first record need not wait for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from stream_app.pipeline.conform import conform
from stream_app.pipeline.decode import Encoded
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.score import score
from stream_app.record import Batch
from stream_app.settings import Settings
from stream_app.sinks.parquet import encode, to_table


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


if __name__ == "__main__":
    warm_detectors(Registry.load())
