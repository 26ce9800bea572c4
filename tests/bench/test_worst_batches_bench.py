"""Compares the cost per record of worst-case batches with that of clean batches: `make bench ARGS='-k worst'`.

Writes build/bench/worst_batches.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from time import process_time

import pytest
from rich.console import Console
from rich.table import Table

from stream_app.event_loading import schema_files
from stream_app.model.records import Records
from stream_app.pipeline.flow import process
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.testing import MAX_BYTES, record
from tests.bench.worst_batches import Kind, kinds

_REPORT = Path("build/bench/worst_batches.json")
_ROUNDS = 3


def _seconds(kind: Kind, payloads: list[bytes]) -> float:
    """Return CPU seconds per record for one batch with empty state, the best of several runs."""
    schemas = kind.schemas or [json.loads(p.read_text()) for p in schema_files(kind.event.name)]
    registry = Registry.of([kind.event], {kind.event.name: schemas}, dry_run=False)
    records = Records.of([record(data, at) for at, data in enumerate(payloads)])
    durations = []
    for _ in range(_ROUNDS):
        state = ShardState({kind.event.name: kind.event}, 256)
        begun = process_time()
        process(records, registry, state, MAX_BYTES)
        durations.append((process_time() - begun) / len(payloads))
    return min(durations)


@pytest.mark.timeout(1_800)
def test_worst_batches_stay_within_their_bound() -> None:
    table = Table(title="Worst-case batches", title_justify="left")
    for heading in ("kind", "records", "µs per record", "clean, µs", "ratio"):
        table.add_column(heading, justify="left" if heading == "kind" else "right")
    found, exceeded = {}, {}
    for kind in kinds():
        bad, clean = _seconds(kind, list(kind.payloads)), _seconds(kind, list(kind.clean))
        found[kind.name] = {"records": len(kind.payloads), "us": bad * 1e6, "clean_us": clean * 1e6}
        ratio = bad / clean
        if ratio > kind.bound:
            exceeded[kind.name] = ratio
        table.add_row(
            kind.name, f"{len(kind.payloads):,}", f"{bad * 1e6:.1f}", f"{clean * 1e6:.1f}", f"{ratio:.1f}"
        )
    Console(width=110).print(table)
    _REPORT.parent.mkdir(parents=True, exist_ok=True)
    _REPORT.write_text(json.dumps(found, indent=1))
    assert not exceeded
