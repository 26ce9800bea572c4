"""The stock way: amazon_kclpy's own loop and processor as its sample has it, and everything row by row.

json.loads, fastavro.validate, plain Python for rules and calculation, river's MinMaxScaler | HalfSpaceTrees per
device. Results and failures are lines of JSON in files; state is lost with the process, as in the sample.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import fastavro
from amazon_kclpy import kcl
from amazon_kclpy.v3 import processor
from fastavro.validation import validate

from stream_app.event import schema_files
from stream_app.events.air_quality import EVENT, RANGES
from tests.bench.consumer.stock_aqi import calculate
from tests.bench.consumer.stock_device import THRESHOLD, Device

_CHECKPOINT_SECONDS = 1
_SKEW_MS = 300_000
_SCHEMA = json.loads(schema_files(EVENT.name)[0].read_text())
_PARSED: Any = fastavro.parse_schema(_SCHEMA)
_FIELDS = [field["name"] for field in _SCHEMA["fields"]]


class RejectedError(Exception):
    """A record that cannot go on, and why."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def read(data: bytes) -> dict[str, Any]:
    """The event's fields. Raises RejectedError."""
    try:
        message = json.loads(data)
    except ValueError as error:
        raise RejectedError("UNDECODABLE", str(error)) from error
    event, body = message.get("detail-type"), message.get("detail")
    if event is None:
        event, body = message.get("event"), message
    if event != EVENT.name:
        raise RejectedError("UNKNOWN_SCHEMA", str(event))
    if body.get("id") is None:
        body["id"] = message.get("id")
    for name in EVENT.required:
        if body.get(name) is None:
            raise RejectedError("FIELD_MISSING", name)
    row = {name: body.get(name) for name in _FIELDS}
    try:
        row["time"] = datetime.fromisoformat(row["time"])
    except (TypeError, ValueError) as error:
        raise RejectedError("SCHEMA_VIOLATION", str(error)) from error
    if not validate(row, _PARSED, raise_errors=False):
        raise RejectedError("SCHEMA_VIOLATION", "not of the schema")
    return row


def verify(row: dict[str, Any], ms: int, arrived: int) -> None:
    """The event's rules. Raises RejectedError."""
    for name, allowed in RANGES.items():
        value = row[name]
        if value is not None and (value < allowed.low or value > allowed.high):
            raise RejectedError("RULE_BROKEN", name)
    if ms > arrived + _SKEW_MS:
        raise RejectedError("RULE_BROKEN", "time")


class StockProcessor(processor.RecordProcessorBase):  # type: ignore[misc]
    """As the sample of amazon_kclpy, with the sample's place for the processing filled in."""

    def __init__(self, folder: Path) -> None:
        self._stored = (folder / "stored.jsonl").open("w")
        self._failed = (folder / "failed.jsonl").open("w")
        self._devices: dict[str, Device] = {}
        self._checkpointed = time.time()

    def initialize(self, initialize_input: Any) -> None:
        """A shard."""
        self._checkpointed = time.time()

    def process_records(self, process_records_input: Any) -> None:
        """Each record by itself; a checkpoint when it is time."""
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
        try:
            arrived = record.approximate_arrival_timestamp.timestamp() * 1000
            row = self._process(read(record.binary_data), int(arrived))
        except RejectedError as error:
            failed = {**position, "code": error.code, "reason": str(error), "key": record.partition_key}
            self._failed.write(json.dumps(failed) + "\n")
            return
        if row is not None:
            stored = {**position, "partition_key": record.partition_key, "arrived": int(arrived), **row}
            self._stored.write(json.dumps(stored) + "\n")

    def _process(self, row: dict[str, Any], arrived: int) -> dict[str, Any] | None:
        """The row with everything calculated, None for a repeat. Raises RejectedError."""
        ms = row["time"] = int(row["time"].timestamp() * 1000)
        device = self._devices.get(row["station"])
        if device is None:
            device = self._devices[row["station"]] = Device()
        if device.is_repeat(row["id"]):
            return None
        verify(row, ms, arrived)
        try:
            calculated = calculate(row, device.windows(row, ms))
        except Exception as error:
            raise RejectedError("CALCULATION_FAILED", repr(error)) from error
        flag = device.flag(row, ms)
        score = device.score(row) if flag is None else None
        device.accept(row["id"])
        anomaly = flag is not None or (score is not None and score >= THRESHOLD)
        return {**row, **calculated, "flag": flag, "score": score, "anomaly": anomaly}

    def _flush(self) -> None:
        self._stored.flush()
        self._failed.flush()

    def lease_lost(self, lease_lost_input: Any) -> None:
        """Nothing to do."""

    def shard_ended(self, shard_ended_input: Any) -> None:
        """Flush, then checkpoint the end."""
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
