"""The same job as a streamz pipeline: map, accumulate (with device state) and sink for each record."""

from __future__ import annotations

from typing import Any

from streamz import Stream

from stream_app.model.record import Record
from tests.bench.consumer import rows
from tests.bench.consumer.pipe import Files, Pipe, folder, prepared
from tests.bench.consumer.stock_device import Device

Item = tuple[Record, Any]


def step(devices: dict[str, Device], keyed: tuple[str, Item]) -> tuple[dict[str, Device], Item]:
    """Process one reading of a device."""
    key, (record, row) = keyed
    if isinstance(row, rows.RejectedError):
        return devices, (record, row)
    if key not in devices:
        devices[key] = Device()
    try:
        return devices, (record, rows.process(row, record.approximate_arrival_timestamp, devices[key]))
    except rows.RejectedError as error:
        return devices, (record, error)


def main() -> None:
    """Run until the input ends."""
    pipe, files, source = Pipe(), Files(folder()), Stream()
    done = source.map(prepared).accumulate(step, start={}, returns_state=True)
    done.sink(lambda item: files.add(*item))
    while (records := pipe.records()) is not None:
        for record in records:
            source.emit(record)
        files.flush()


if __name__ == "__main__":
    main()
