"""Benchmark input: the bundled readings as a fleet of devices, and the daemon's protocol lines for them."""

from __future__ import annotations

import base64
import random
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from stream_app.aws.request_sizes import envelope
from stream_app.ingest.datasets import readings

SHARD = "shardId-000000000000"
FIRST_SEQUENCE = 49_600_000_000_000_000_000_000_000_000_000_000_000_000_000_000_000_000_000
POLLUTANTS = ("pm25", "pm10", "so2", "no2", "co", "o3")
WEATHER = ("temperature", "pressure", "dew_point", "rain", "wind_speed", "wind_direction")
KINDS = ("undecodable", "schema", "missing", "rule", "calculation")
SEGMENT_MS = 60_000
# A full shard receives one record per millisecond. Later than the timestamp of any reading.
ARRIVAL = 1_893_456_000_000 // SEGMENT_MS * SEGMENT_MS
START = datetime(2016, 12, 1, tzinfo=UTC)
_MEMBER = len(b',"v":""')


@dataclass(frozen=True, slots=True)
class Case:
    """One point of the grid.

    `records` are timed after `warm` warm-up records, both rounded to whole batches. `payload` is the record size in
    bytes (below 300: plain JSON without the EventBridge envelope), padded by a field unknown to the schema. `bad` is
    the fraction of records that fail, cycling through five kinds; `repeats` is the fraction sent twice in a row.
    `detector` is "default", "none" or "trees". `lives` limits the number of distinct device histories; further
    devices repeat one of them.
    """

    devices: int = 100
    payload: int = 361
    bad: float = 0.0
    batch: int = 500
    records: int = 120_000
    warm: int = 30_000
    detector: str = "default"
    repeats: float = 0.0
    weather: bool = False
    lives: int | None = None

    @property
    def name(self) -> str:
        """Description for tables."""
        return (
            f"{self.devices} devices, {self.payload} B, {self.bad:.0%} bad, "
            f"batches of {self.batch}, detector {self.detector}"
        )


class Lines(NamedTuple):
    """The daemon's lines for the warm-up and for the timed part, with the number of records in each."""

    warm: list[bytes]
    timed: list[bytes]
    warm_records: int
    timed_records: int


class Sent(NamedTuple):
    """Partition key and data of a record."""

    key: str
    data: bytes


def device(number: int) -> str:
    """Return a short device name; it keeps the envelope at the 361 bytes of the headline."""
    digits = ""
    while True:
        number, at = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[at] + digits
        if not number:
            return "d" + digits.rjust(2, "0")


@cache
def stations() -> list[list[dict[str, Any]]]:
    """Return the hourly readings of each station in the bundled winter data set."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in readings("beijing-winter"):
        found.setdefault(row["station"], []).append(row)
    return [found[name] for name in sorted(found)]


def sent(case: Case) -> Iterator[Sent]:
    """Yield an endless, deterministic series of records: hour by hour, all devices in each hour.

    Device n sends the readings of station n mod 12, with its own start hour.
    """
    rng = random.Random(6)
    bad_before = number = 0
    while True:
        hour, at = divmod(number, case.devices)
        detail = _detail(device(at), at, hour, case)
        kind = None
        if int((number + 1) * case.bad) > bad_before:
            kind = KINDS[bad_before % len(KINDS)]
            bad_before += 1
        record = Sent(device(at), _bytes(detail, kind, case))
        yield record
        if case.repeats and rng.random() < case.repeats:
            yield record
        number += 1


def winter_factor(winter: int) -> float:
    """Return a factor within a few per cent of 1 that varies the readings of repeated winters (0: unchanged).

    Without it, devices would repeat the same values, and the detector would have less to learn than in production.
    """
    return 1 + 0.02 * ((5 * winter + 3) % 7 - 3) + 0.001 * winter


def _detail(name: str, at: int, hour: int, case: Case) -> dict[str, Any]:
    if case.lives is not None:
        at %= case.lives
    station = stations()[at % 12]
    winter, row_at = divmod(at // 12 * 37 + hour, len(station))
    row = station[row_at]
    time = START + timedelta(hours=hour)
    fields = (*POLLUTANTS, *WEATHER) if case.weather else POLLUTANTS
    return {
        "id": f"{name}/{time:%Y-%m-%dT%H}",
        "station": name,
        "time": time,
        **{field: row[field] for field in fields},
        **_of_winter(row, winter),
    }


def _of_winter(row: dict[str, Any], winter: int) -> dict[str, Any]:
    known = (field for field in POLLUTANTS if winter and row[field] is not None)
    return {field: round(row[field] * winter_factor(winter), 1) for field in known}


def _bytes(detail: dict[str, Any], kind: str | None, case: Case) -> bytes:
    match kind:
        case "schema":
            detail["pm25"] = "high"
        case "missing":
            detail["station"] = None
        case "rule":
            detail["pm10"] = -1.0
        case "calculation":
            detail |= {"wind_speed": 1.0, "wind_direction": "XYZ"}
    room = case.payload - len(_encoded(detail, case)) - _MEMBER
    if room >= 0:
        detail["v"] = "x" * room
    data = _encoded(detail, case)
    return data[:-1] + b"?" if kind == "undecodable" else data


def _encoded(detail: dict[str, Any], case: Case) -> bytes:
    if case.payload < 300:
        return msgspec.json.encode({"event": "air_quality", **detail})
    name, time = detail["id"].partition("/")[0], detail["time"]
    bus_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{name}{time}"))
    return envelope(
        "air_quality", name, detail, id=bus_id, time=time, region="us-east-1", account="123456789012"
    )


def lines(case: Case) -> Lines:
    """Return the case as protocol lines of the daemon.

    The last warm-up batch starts a new segment, so that the timed part does not share a segment with the warm-up.
    """
    warm, timed = (max(1, round(n / case.batch)) for n in (case.warm, case.records))
    source = sent(case)
    batches, at = [], 0
    for number in range(warm + timed):
        records = list(islice(source, case.batch))
        begins = ARRIVAL + SEGMENT_MS * (number >= warm - 1) if number < warm else None
        batches.append(_line(records, at, begins, (at - (warm - 1) * case.batch)))
        at += len(records)
    return Lines(batches[:warm], batches[warm:], warm * case.batch, timed * case.batch)


def _line(records: Sequence[Sent], first: int, begins: int | None, since: int) -> bytes:
    arrived = [ARRIVAL + SEGMENT_MS + since + n if begins is None else begins for n in range(len(records))]
    items = [
        {
            "data": base64.b64encode(record.data).decode(),
            "partitionKey": record.key,
            "approximateArrivalTimestamp": arrived[n],
            "sequenceNumber": str(FIRST_SEQUENCE + first + n),
            "subSequenceNumber": 0,
            "action": "record",
        }
        for n, record in enumerate(records)
    ]
    message = {"action": "processRecords", "records": items, "millisBehindLatest": 1000}
    return msgspec.json.encode(message) + b"\n"
