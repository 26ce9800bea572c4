"""The stock consumer: amazon_kclpy's loop, a processor like its sample application, and row-by-row processing.

Writes results and failures as JSON lines; state is lost when the process ends, as in the sample.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from amazon_kclpy import kcl
from amazon_kclpy.v3 import processor

from tests.bench.consumer import rows
from tests.bench.consumer.stock_device import Device

_CHECKPOINT_SECONDS = 1


class StockProcessor(processor.RecordProcessorBase):  # type: ignore[misc]
    """The sample processor of amazon_kclpy with the record processing added."""

    def __init__(self, folder: Path) -> None:
        self._stored = (folder / "stored.jsonl").open("w")
        self._failed = (folder / "failed.jsonl").open("w")
        self._devices: dict[str, Device] = {}
        self._checkpointed = time.time()

    def initialize(self, initialize_input: Any) -> None:
        """Start a shard."""
        self._checkpointed = time.time()

    def process_records(self, process_records_input: Any) -> None:
        """Process each record, and checkpoint when the interval has passed."""
        records = process_records_input.records
        for record in records:
            self._record(record)
        if time.time() - self._checkpointed > _CHECKPOINT_SECONDS:
            self._flush()
            last = records[-1]
            process_records_input.checkpointer.checkpoint(last.sequence_number, last.sub_sequence_number)
            self._checkpointed = time.time()

    def _record(self, record: Any) -> None:
        position = {"sequence": record.sequence_number, "sub": record.sub_sequence_number}
        arrived = int(record.approximate_arrival_timestamp.timestamp() * 1000)
        try:
            row = rows.read(record.binary_data)
            done = rows.process(row, arrived, self._device(row["station"]))
        except rows.RejectedError as error:
            self._failed.write(rows.failed(position, record.partition_key, error))
            return
        if done is not None:
            self._stored.write(rows.stored(position, record.partition_key, arrived, done))

    def _device(self, key: str) -> Device:
        device = self._devices.get(key)
        if device is None:
            device = self._devices[key] = Device()
        return device

    def _flush(self) -> None:
        self._stored.flush()
        self._failed.flush()

    def lease_lost(self, lease_lost_input: Any) -> None:
        """Nothing to do."""

    def shard_ended(self, shard_ended_input: Any) -> None:
        """Flush, then checkpoint the end of the shard."""
        self._flush()
        shard_ended_input.checkpointer.checkpoint()

    def shutdown_requested(self, shutdown_requested_input: Any) -> None:
        """Flush, then checkpoint."""
        self._flush()
        shutdown_requested_input.checkpointer.checkpoint()


if __name__ == "__main__":
    folder = Path(os.environ["BENCH_FOLDER"])
    folder.mkdir(parents=True, exist_ok=True)
    kcl.KCLProcess(StockProcessor(folder), sys.stdin, sys.stdout, sys.stderr).run()
