"""The same job as a Bytewax dataflow: read, by device, stateful, written. Without recovery, which would cost more.

A line is answered when all its records have come to the sink: KCL is not told that a record is done before it is.
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
# When an epoch ends, every ten seconds by itself, Bytewax copies the state of all devices that were met in it, also
# without recovery: seconds, with river's trees. A run so short meets that by accident, so none does.
EPOCH = timedelta(days=1)


class Line:
    """How many records of the line that was read last are still on their way."""

    def __init__(self) -> None:
        self.open = 0


class Lines(DynamicSource[Record], StatelessSourcePartition[Record]):
    """The daemon's lines, one at a time."""

    def __init__(self, pipe: Pipe, line: Line, files: Files) -> None:
        self._pipe, self._line, self._files = pipe, line, files

    def build(self, *_: Any) -> Lines:
        """There is one worker."""
        return self

    def next_batch(self) -> list[Record]:
        """The next line's records, none while some are on their way."""
        if self._line.open:
            return []
        self._files.flush()
        records = self._pipe.records()
        if records is None:
            raise StopIteration
        self._line.open = len(records)
        return list(records)


class Out(DynamicSink[tuple[str, Item]], StatelessSinkPartition[tuple[str, Item]]):
    """The files."""

    def __init__(self, line: Line, files: Files) -> None:
        self._line, self._files = line, files

    def build(self, *_: Any) -> Out:
        """There is one worker."""
        return self

    def write_batch(self, items: list[tuple[str, Item]]) -> None:
        """Results of some records."""
        for _, (record, done) in items:
            self._files.add(record, done)
        self._line.open -= len(items)


def step(device: Device | None, item: Item) -> tuple[Device, Item]:
    """One reading of a device."""
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
