"""A user's sink: it stores the rows of a segment and rejects some."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stream_app.api import Code, Failure, Segment, Sink


class CsvSink:
    """Write one CSV file for each segment and event type."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, segment: Segment) -> Sequence[Failure]:
        """Replace the files of the segment; reject event types whose name is no file name."""
        rejected: list[Failure] = []
        for name, batch in segment.passed.items():
            if "/" in name:
                rejected += [
                    Failure(int(row), "csv", Code.SINK_REJECTED, "no file name", name) for row in batch.rows
                ]
                continue
            (self._folder / f"{segment.name}-{name}.csv").write_text(batch.to_pandas().to_csv())
        return rejected

    def close(self) -> None:
        """There is nothing to close."""


def sinks(folder: Path) -> list[Sink]:
    """Return the sinks in the order in which they are written."""
    return [CsvSink(folder)]
