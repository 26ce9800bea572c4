"""The pipeline reports the expected outcome for every fault, repeat and reading of a plan."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from stream_app.event_loading import discover, load_registry
from stream_app.ingest.datasets import JOURNEYS, WINTER, dataset
from stream_app.ingest.devices import PlayOptions, event_encoders, event_of, outgoing_records
from stream_app.ingest.envelope import Encode, OutgoingRecord
from stream_app.ingest.faults import LIMIT, expected
from stream_app.ingest.producer import publish
from stream_app.ingest.publish_options import Destination, PublishOptions
from stream_app.model.record import Record
from stream_app.pipeline.flow import process
from stream_app.pipeline.state.shard_state import ShardState


class Stream:
    """A stream with one shard that keeps its records."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def put_records(self, StreamName: str, Records: list[dict[str, Any]]) -> dict[str, Any]:
        now = time.time_ns() // 1_000_000
        for record in Records:
            sequence = str(len(self.records) + 1)
            self.records.append(Record(record["Data"], record["PartitionKey"], sequence, now))
        return {"FailedRecordCount": 0, "Records": [{"ShardId": "0"}] * len(Records)}


def publish_to_stream(plan: Sequence[OutgoingRecord], stream: Stream, encoders: Mapping[str, Encode]) -> None:
    """Write all records of a plan to the stream."""
    client: Any = stream
    publish(
        plan,
        Destination(client, client, "bus", "stream"),
        PublishOptions(via="stream", encoders=encoders, threads=1),
    )


@pytest.mark.parametrize("name", [WINTER, JOURNEYS])
@pytest.mark.parametrize("seed", [35, 6])
def test_the_pipeline_reports_the_expected_outcomes(name: str, seed: int) -> None:
    data, registry, events = dataset(name), load_registry(), discover()
    event = event_of(data, events)
    forms = event_encoders(event)
    plan = list(outgoing_records(data, event, forms, PlayOptions(seed=seed, first=8_000)))
    stream = Stream()
    publish_to_stream(plan, stream, forms)
    state, found = ShardState(events, 256), Counter[Any]()
    for at in range(0, len(stream.records), 1_000):
        done = process(stream.records[at : at + 1_000], registry, state, LIMIT)
        found[None] += sum(len(batch) for batch in done.passed.values())
        found["repeated"] += len(done.repeated)
        found.update(failure.code for failure in done.failed)
    assert found == expected(plan)
