"""The air_quality job row by row, for the stock consumer and the other stream processors.

Uses json.loads, fastavro.validate, plain Python for rules and calculation, and river's MinMaxScaler | HalfSpaceTrees.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import fastavro
from fastavro.validation import validate

from stream_app.event_loading import schema_files
from stream_app.events.air_quality.event import EVENT, RANGES
from tests.bench.consumer.stock_aqi import calculate
from tests.bench.consumer.stock_device import THRESHOLD, Device

Row = dict[str, Any]
_SKEW_MS = 300_000
_SCHEMA = json.loads(schema_files(EVENT.name)[0].read_text())
_PARSED: Any = fastavro.parse_schema(_SCHEMA)
_FIELDS = [field["name"] for field in _SCHEMA["fields"]]


class RejectedError(Exception):
    """Raised for a record that fails, with its error code and reason."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def read(data: bytes) -> Row:
    """Decode and validate the fields of an event. Raises RejectedError."""
    try:
        message = json.loads(data)
    except ValueError as error:
        raise RejectedError("UNDECODABLE", str(error)) from error
    event, body = message.get("detail-type"), message.get("detail")
    if event is None:
        event, body = message.get("event"), message
    elif body.get("id") is None:
        body["id"] = message.get("id")
    if event != EVENT.name:
        raise RejectedError("UNKNOWN_SCHEMA", str(event))
    for name in EVENT.required:
        if body.get(name) is None:
            raise RejectedError("FIELD_MISSING", name)
    row = {name: body.get(name) for name in _FIELDS}
    try:
        row["time"] = datetime.fromisoformat(row["time"])
    except (TypeError, ValueError) as error:
        raise RejectedError("SCHEMA_VIOLATION", str(error)) from error
    if not validate(row, _PARSED, raise_errors=False):
        raise RejectedError("SCHEMA_VIOLATION", "does not match the schema")
    row["time"] = int(row["time"].timestamp() * 1000)
    return row


def _verify(row: Row, arrived: int) -> None:
    for name, allowed in RANGES.items():
        value = row[name]
        if value is not None and (value < allowed.low or value > allowed.high):
            raise RejectedError("RULE_BROKEN", name)
    if row["time"] > arrived + _SKEW_MS:
        raise RejectedError("RULE_BROKEN", "time")


def process(row: Row, arrived: int, device: Device) -> Row | None:
    """Return the row with calculated columns, or None for a duplicate; updates `device`. Raises RejectedError."""
    ms = row["time"]
    if device.is_repeat(row["id"]):
        return None
    _verify(row, arrived)
    try:
        calculated = calculate(row, device.windows(row, ms))
    except Exception as error:
        raise RejectedError("CALCULATION_FAILED", repr(error)) from error
    flag = device.flag(row, ms)
    score = device.score(row) if flag is None else None
    device.accept(row["id"])
    anomaly = flag is not None or (score is not None and score >= THRESHOLD)
    return {**row, **calculated, "flag": flag, "score": score, "anomaly": anomaly}


def stored(position: Row, key: str, arrived: int, row: Row) -> str:
    """Return the output line of a stored row; `position` contains `sequence` and `sub`."""
    return json.dumps({**position, "partition_key": key, "arrived": arrived, **row}) + "\n"


def failed(position: Row, key: str, error: RejectedError) -> str:
    """Return the output line of a failed record."""
    return json.dumps({**position, "code": error.code, "reason": str(error), "key": key}) + "\n"
