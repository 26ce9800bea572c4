"""One event type run through the whole pipeline, without AWS."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from stream_app.event import Event, schema_files
from stream_app.pipeline.flow import process
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.state import ShardState
from stream_app.record import Failure, Record
from stream_app.testing.records import record

MAX_BYTES = 262_144


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of rows: `passed` with all columns, indexed by row; failures; rows that were repeats."""

    passed: pd.DataFrame
    failed: Sequence[Failure]
    repeated: Sequence[int]


def run(event: Event, rows: Sequence[Mapping[str, Any]], *, schema: dict[str, Any] | None = None) -> Ran:
    """Send rows (an event's fields, JSON values) through the whole pipeline, as one device fleet, in order.

    The schema is `schemas/<event>.avsc` unless it is given. Raises ConfigError when event and schema disagree.
    """
    versions = [schema] if schema else [json.loads(path.read_text()) for path in schema_files(event.name)]
    registry = Registry.of([event], {event.name: versions})
    records = [_plain(event, row, at) for at, row in enumerate(rows)]
    result = process(records, registry, ShardState({event.name: event}, 256), MAX_BYTES)
    batch = result.passed.get(event.name)
    passed = batch.to_pandas() if batch is not None else pd.DataFrame()
    return Ran(passed, result.failed, result.repeated.tolist())


def _plain(event: Event, row: Mapping[str, Any], at: int) -> Record:
    data = msgspec.json.encode({"event": event.name, **row})
    return record(
        data, at, key=str(row.get(event.key, "")), arrived=int(np.datetime64("now", "ms").astype(int))
    )
