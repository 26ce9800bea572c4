"""Measures the memory used after a million devices sent one reading each: `make bench ARGS='-k forgetting'`."""

from __future__ import annotations

import gc
import json
import multiprocessing
from datetime import UTC, datetime
from time import process_time

import pytest

from stream_app.event_loading import schema_files
from stream_app.events.air_quality.event import EVENT
from stream_app.model.record import Record
from stream_app.pipeline.flow import process
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.testing import MAX_BYTES, record
from tests.fuzz.watch import resident_mb

_DEVICES, _BATCH, _START = 1_000_000, 4_000, 1_480_550_400_000
_DAY = 86_400_000


def _measured(days: int, results: multiprocessing.Queue[tuple[float, float, int, int]]) -> None:
    """Process a year of new devices, one every 31.5 s; each expires after `days` days (0: never)."""
    schemas = [json.loads(path.read_text()) for path in schema_files(EVENT.name)]
    registry = Registry.of([EVENT], {EVENT.name: schemas})
    state = ShardState({EVENT.name: EVENT}, 256, days * _DAY)
    spent, before = 0.0, 0.0
    for first in range(0, _DEVICES, _BATCH):
        records = [_reading(number) for number in range(first, first + _BATCH)]
        before = before or resident_mb()
        begun = process_time()
        process(records, registry, state, MAX_BYTES)
        spent += process_time() - begun
    gc.collect()
    results.put((resident_mb() - before, 1e6 * spent / _DEVICES, state.devices, state.forgotten))


def _reading(number: int) -> Record:
    arrived = _START + number * 31_536
    time = datetime.fromtimestamp(arrived / 1_000, UTC).isoformat()
    fields = {"event": EVENT.name, "id": "1", "station": f"s{number}", "time": time, "PM2.5": 7.0, "O3": 9.0}
    return record(json.dumps(fields).encode(), number + 1, arrived=arrived)


@pytest.mark.timeout(1_800)
def test_forgetting_bounds_memory() -> None:
    context, found = multiprocessing.get_context("spawn"), {}
    for days in (0, 30, 3):
        results = context.Queue()
        child = context.Process(target=_measured, args=(days, results))
        child.start()
        found[days] = results.get()
        child.join()
        mb, us, devices, forgotten = found[days]
        summary = f"{mb:,.0f} MB, {us:.1f} µs per record, {devices:,} devices held, {forgotten:,} forgotten"
        print(f"forget after {days or 'no'} days: {summary}")
    assert found[3][2] < _DEVICES / 20
    assert found[3][0] < found[0][0] / 4
