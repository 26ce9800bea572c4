"""Corrections of real readings with faults that checks flag, including twelve-hour windows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from stream_app.event_loading import schema_files
from stream_app.events.air_quality.event import EVENT
from stream_app.ingest.datasets import WINTER, dataset
from stream_app.ingest.devices import PlayOptions, event_encoders, outgoing_records
from stream_app.model.event import Rate, Stuck, as_missing
from stream_app.model.segment import token
from stream_app.recovery.correct.request import RequestResult, correct
from tests.contracts.correcting import APPLICATION, CorrectionCase
from tests.contracts.test_correct_after import Trimmed
from tests.contracts.test_devices_pipeline import Stream, publish_to_stream

CHECKS = (Rate("pm25", 100.0), Rate("pm10", 150.0), Stuck("no2", 8))
COUNT, SIZE = 1_500, 120


@pytest.fixture
def dependencies(aws: Callable[[str], Any]) -> CorrectionCase:
    forms, stream = event_encoders(EVENT), Stream()
    plan = list(outgoing_records(dataset(WINTER), EVENT, forms, PlayOptions(seed=35, first=COUNT)))
    publish_to_stream(plan, stream, forms)
    event = dataclasses.replace(EVENT, checks=CHECKS, correct=as_missing(CHECKS))
    made = CorrectionCase(aws, event, [json.loads(path.read_text()) for path in schema_files(EVENT.name)])
    made.store([record.data for record in stream.records], [SIZE] * -(-len(stream.records) // SIZE))
    made.checkpoint()
    return made


@pytest.mark.parametrize("payloads", ["in the stream", "gone"])
def test_every_flagged_reading_is_reproduced_and_then_counts_as_missing(
    dependencies: CorrectionCase, payloads: str
) -> None:
    kinesis = dependencies.kinesis if payloads == "in the stream" else Trimmed(dependencies.kinesis)
    flagged = {
        token(segment.records[row].position(dependencies.shard)): flag
        for segment in dependencies.segments
        for batch in segment.passed.values()
        for row, flag in zip(batch.rows.tolist(), batch["flag"].tolist(), strict=True)
        if flag is not None
    }
    assert len(flagged) > 5
    at = {dependencies.token(number): number for number in range(len(dependencies.records))}
    for place, flag in flagged.items():
        request = dependencies.request(at[place])
        told: list[Any] = []
        verdict = correct(request, dependencies.history, dependencies.corrector(kinesis=kinesis), told.append)
        assert (verdict, told) == (RequestResult.CORRECTED, [])
        entry = dependencies.history.get(APPLICATION, request.position)
        assert entry is not None
        assert entry.done is not None
        assert entry.done.rebuilt == (payloads == "gone")
        name = flag.split(" ")[0]
        assert entry.done.before[name] is not None
        assert entry.done.after[name] is None


def test_as_missing_keeps_every_other_field(dependencies: CorrectionCase) -> None:
    batch = next(iter(dependencies.segments[0].passed.values()))
    flags = np.array([None] * len(batch), dtype=object)
    flags[0] = CHECKS[0].name
    made = as_missing(CHECKS)(batch.with_columns({"flag": flags}))
    assert made.keys() == {"pm25", "pm10", "no2"}
    assert np.isnan(made["pm25"][0])
    assert made["pm25"][1:].tobytes() == batch["pm25"][1:].tobytes()
    assert made["no2"].tobytes() == batch["no2"].tobytes()
