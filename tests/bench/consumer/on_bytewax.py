"""The same job as a Bytewax dataflow keyed by device, without recovery, which would cost more.

A line is answered only after all its records have reached the sink, so KCL never sees unfinished work as done.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main

from stream_app.model.record import Record
from tests.bench.consumer import rows
from tests.bench.consumer.pipe import Files, Pipe, folder, prepared
from tests.bench.consumer.stock_device import Device

Item = tuple[Record, Any]
# At the end of each epoch (by default ten seconds) Bytewax copies the state of all devices it updated, even without
# recovery; with river's trees this takes seconds. Short runs would include a copy only by chance, so none does.
EPOCH = timedelta(days=1)


class Line:
    """Counts the records of the current line that have not reached the sink."""

    def __init__(self) -> None:
        self.open = 0


class Lines(DynamicSource[Record], StatelessSourcePartition[Record]):
    """Source of records, one line of the daemon at a time."""

    def __init__(self, pipe: Pipe, line: Line, files: Files) -> None:
        self._pipe, self._line, self._files = pipe, line, files

    def build(self, *_: Any) -> Lines:
        """Return self, because there is one worker."""
        return self

    def next_batch(self) -> list[Record]:
        """Return the records of the next line, or none while records of the current line are pending."""
        if self._line.open:
            return []
        self._files.flush()
        records = self._pipe.records()
        if records is None:
            raise StopIteration
        self._line.open = len(records)
        return list(records)


class Out(DynamicSink[tuple[str, Item]], StatelessSinkPartition[tuple[str, Item]]):
    """Sink that writes results to files."""

    def __init__(self, line: Line, files: Files) -> None:
        self._line, self._files = line, files

    def build(self, *_: Any) -> Out:
        """Return self, because there is one worker."""
        return self

    def write_batch(self, items: list[tuple[str, Item]]) -> None:
        """Write the results of some records."""
        for _, (record, done) in items:
            self._files.add(record, done)
        self._line.open -= len(items)


def step(device: Device | None, item: Item) -> tuple[Device, Item]:
    """Process one reading of a device."""
    device = Device() if device is None else device
    record, row = item
    if isinstance(row, rows.RejectedError):
        return device, item
    try:
        return device, (record, rows.process(row, record.approximate_arrival_timestamp, device))
    except rows.RejectedError as error:
        return device, (record, error)


def main() -> None:
    """Run until the input ends."""
    line, files = Line(), Files(folder())
    flow = Dataflow("bench")
    records = op.input("lines", flow, Lines(Pipe(), line, files))
    done = op.stateful_map("device", op.map("read", records, prepared), step)
    op.output("files", done, Out(line, files))
    run_main(flow, epoch_interval=EPOCH)


if __name__ == "__main__":
    main()
