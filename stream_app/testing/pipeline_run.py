"""Runs one event type through the whole pipeline, without AWS."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pandas as pd

from stream_app.event_loading import schema_files
from stream_app.model.event import Event
from stream_app.model.record import Failure, Record
from stream_app.pipeline.flow import process
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.testing.records import record

MAX_BYTES = 262_144


@dataclass(frozen=True, slots=True)
class Ran:
    """The outcomes of rows: `passed` with all columns, indexed by row, failures, and duplicate rows."""

    passed: pd.DataFrame
    failed: Sequence[Failure]
    repeated: Sequence[int]


def run(event: Event, rows: Sequence[Mapping[str, Any]], *, schema: dict[str, Any] | None = None) -> Ran:
    """Process rows (an event's fields as JSON values) in order through the whole pipeline.

    The schema is `schemas/<event>.avsc` unless it is given. Raises ConfigError when event and schema disagree.
    """
    registry, records = registry_of(event, schema), plain_records(event, rows)
    result = process(records, registry, ShardState({event.name: event}, 256), MAX_BYTES)
    batch = result.passed.get(event.name)
    passed = batch.to_pandas() if batch is not None else pd.DataFrame()
    return Ran(passed, result.failed, result.repeated.tolist())


def registry_of(event: Event, schema: Mapping[str, Any] | None, *, dry_run: bool = True) -> Registry:
    """Compile one event type. Raises ConfigError if event and schema do not fit.

    `dry_run` calls its functions with generated rows first, as the consumer does.
    """
    files = [] if schema else schema_files(event.name)
    versions = [dict(schema)] if schema else [json.loads(path.read_text(encoding="utf-8")) for path in files]
    return Registry.of([event], {event.name: versions}, dry_run=dry_run)


def plain_records(event: Event, rows: Sequence[Mapping[str, Any]]) -> list[Record]:
    """Return rows as consecutive records of plain JSON that arrive now."""
    now = time.time_ns() // 1_000_000
    return [
        record(
            msgspec.json.encode({"event": event.name, **row}),
            at,
            key=str(row.get(event.key) or ""),
            arrived=now,
        )
        for at, row in enumerate(rows)
    ]
