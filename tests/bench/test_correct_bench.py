"""Measures corrections of stored rows per second: `make bench ARGS='-k correct'`.

Corrections run in this process, as in the Lambda function, against the embedded AWS in another process. Both share
the machine, so the CPU time of the embedded AWS is reported separately. The test first checks that correcting in
batches gives the same result as correcting one row at a time.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from stream_app import app
from stream_app.event_loading import schema_files
from stream_app.events.air_quality.event import EVENT
from stream_app.ingest.datasets import WINTER, dataset
from stream_app.ingest.devices import PlayOptions, event_encoders, outgoing_records
from stream_app.local.server import process as aws
from stream_app.model.event import Rate, Stuck, as_missing
from stream_app.recovery.correct.history_entry import Request
from stream_app.recovery.correct.request import RequestResult
from tests.contracts.correcting import CorrectionCase
from tests.contracts.correcting_batches import one_by_one, put_back, shuffled, state, stored, together
from tests.contracts.test_correct import tables
from tests.contracts.test_devices_pipeline import Stream, publish_to_stream

CHECKS = (Rate("pm25", 100.0), Rate("pm10", 150.0), Stuck("no2", 8))
READINGS, SEGMENT, CHECKED = 20_000, 2_000, 24
OUT = Path("build/bench/correct.json")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[aws.LocalAws]:
    with aws.start(log=tmp_path_factory.mktemp("aws") / "aws.log") as running:
        yield running


@pytest.fixture(scope="module")
def dependencies(server: aws.LocalAws) -> CorrectionCase:
    forms, stream = event_encoders(EVENT), Stream()
    plan = list(outgoing_records(dataset(WINTER), EVENT, forms, PlayOptions(seed=35, first=READINGS)))
    publish_to_stream(plan, stream, forms)
    event = dataclasses.replace(EVENT, checks=CHECKS, correct=as_missing(CHECKS))
    schemas = [json.loads(path.read_text()) for path in schema_files(EVENT.name)]
    case = CorrectionCase(app.clients({**os.environ, **server.environment()}), event, schemas)
    case.store([record.data for record in stream.records], [SEGMENT] * -(-len(stream.records) // SEGMENT))
    case.checkpoint()
    return case


@pytest.fixture(scope="module")
def requests(dependencies: CorrectionCase) -> list[Request]:
    """One request for each row flagged by a check, in sequence order."""
    at = {record.sequence_number: number for number, record in enumerate(dependencies.records)}
    return [
        dependencies.request(at[segment.records[row].sequence_number])
        for segment in dependencies.segments
        for batch in segment.passed.values()
        for row, flag in zip(batch.rows.tolist(), batch["flag"].tolist(), strict=True)
        if flag is not None
    ]


def cpu(pid: int) -> float:
    process = psutil.Process(pid)
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def timed(
    server: aws.LocalAws, dependencies: CorrectionCase, requests: list[Request], size: int
) -> dict[str, Any]:
    """Correct all requests in batches of `size` and return the measurements."""
    work = dependencies.corrector()
    here, there, started = time.process_time(), cpu(server.pid), time.perf_counter()
    answers = together(dependencies, requests, size, work)
    seconds = time.perf_counter() - started
    assert answers == [RequestResult.CORRECTED] * len(requests)
    count = len(requests)
    return {
        "batch": size,
        "corrections": count,
        "per_second": count / seconds,
        "cpu_ms": 1_000 * (time.process_time() - here) / count,
        "aws_cpu_ms": 1_000 * (cpu(server.pid) - there) / count,
    }


def test_corrections_per_second(
    server: aws.LocalAws, dependencies: CorrectionCase, requests: list[Request]
) -> None:
    before, sample = stored(dependencies), requests[:: len(requests) // CHECKED]
    assert one_by_one(dependencies, sample) == [RequestResult.CORRECTED] * len(sample)
    expected = state(dependencies, tables)
    put_back(dependencies, before)
    assert together(dependencies, shuffled(sample, 1), len(sample)) == [RequestResult.CORRECTED] * len(sample)
    assert state(dependencies, tables) == expected

    found = []
    for size in (1, 10, 100, 500):
        put_back(dependencies, before)
        part = sample if size == 1 else requests
        found.append(timed(server, dependencies, part if size <= 10 else shuffled(part, size), size))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(
        json.dumps({"readings": len(dependencies.records), "segment": SEGMENT, "runs": found}, indent=1)
    )
    print(
        f"\n{len(requests)} flagged of {len(dependencies.records)} readings in {len(dependencies.segments)} segments"
    )
    print(f"{'batch':>8}{'corrections':>13}{'per second':>12}{'CPU ms each':>13}{'AWS CPU ms each':>17}")
    for one in found:
        print(
            f"{one['batch']:>8}{one['corrections']:>13}{one['per_second']:>12.0f}"
            f"{one['cpu_ms']:>13.2f}{one['aws_cpu_ms']:>17.2f}"
        )
