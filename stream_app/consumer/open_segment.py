"""The open segment of a shard's consumer: its records and their results so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from stream_app.model.record import Batch, Failure, IntVector, concat
from stream_app.model.record_metadata import RecordMetadata
from stream_app.model.records import Records
from stream_app.model.segment import Segment
from stream_app.pipeline.flow import Processed
from stream_app.settings import Settings
from stream_app.sinks.columns import without_helpers


@dataclass(slots=True)
class OpenSegment:
    """The metadata of the records, and each batch's result with the row at which it starts."""

    records: RecordMetadata = field(default_factory=RecordMetadata)
    parts: list[tuple[int, Processed]] = field(default_factory=list)

    def add(self, records: Records, result: Processed) -> None:
        """Append a batch. Columns that only calculations and alerts need are dropped."""
        passed = {name: without_helpers(batch) for name, batch in result.passed.items()}
        self.parts.append((len(self.records), Processed(passed, result.failed, result.repeated)))
        self.records.add(records)

    def closed(self, settings: Settings, shard: str, by_clock: bool) -> Segment:
        """Return all batches as one segment, with rows relative to its first record, and release them."""
        batches: dict[str, list[Batch]] = {}
        offsets: dict[str, list[int]] = {}
        failed: list[Failure] = []
        repeated: list[IntVector] = []
        for offset, part in self.parts:
            for name, batch in part.passed.items():
                batches.setdefault(name, []).append(batch)
                offsets.setdefault(name, []).append(offset)
            failed += [failure.moved(offset) for failure in part.failed] if offset else part.failed
            if len(part.repeated):
                repeated.append(part.repeated + offset)
        passed: Mapping[str, Batch] = {
            name: whole
            for name in sorted(batches)
            if (whole := concat(batches[name], offsets[name])) is not None
        }
        rows = np.concatenate(repeated) if repeated else np.zeros(0, dtype=np.int64)
        self.parts.clear()  # the sinks need the memory
        names = settings.application, settings.stream, shard
        return Segment(*names, self.records, passed, failed, rows, by_clock)
