"""Every shipped sink satisfies the sink contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stream_app.model.event import Event
from stream_app.sinks.dynamodb import LatestSink
from stream_app.sinks.laws import Step, check, watched
from stream_app.sinks.s3 import ManifestSink, ParquetSink
from tests.contracts.test_sink_dynamodb import EVENTS, TABLE, items
from tests.contracts.test_sink_dynamodb import dynamodb as dynamodb
from tests.contracts.test_sink_s3 import BUCKET, everything


def empty_bucket(s3: Any) -> None:
    for key in everything(s3):
        s3.delete_object(Bucket=BUCKET, Key=key)


SINKS: list[Callable[[Any, Step], Any]] = [
    lambda s3, step: ParquetSink(watched(s3, step), BUCKET),
    lambda s3, step: ManifestSink(watched(s3, step), BUCKET),
]


@pytest.mark.parametrize("make", SINKS, ids=["Parquet", "manifest"])
def test_the_s3_sinks_satisfy_the_sink_contract(s3: Any, make: Callable[[Any, Step], Any]) -> None:
    check(lambda step: make(s3, step), stored=lambda: everything(s3), clear=lambda: empty_bucket(s3))


def test_the_dynamodb_sink_satisfies_the_sink_contract(dynamodb: Any) -> None:
    events = {**EVENTS, "reading": Event(name="reading", key="device")}

    def clear() -> None:
        for device in items(dynamodb):
            dynamodb.delete_item(TableName=TABLE, Key={"device": {"S": device}})

    check(
        lambda step: LatestSink(watched(dynamodb, step), TABLE, events),
        stored=lambda: items(dynamodb),
        clear=clear,
    )
