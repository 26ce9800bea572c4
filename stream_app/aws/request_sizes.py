"""What is put onto a bus or a stream: an event's forms there, their sizes, what a request may hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

SOURCE: Final = "stream-app.devices"

# PutEvents: 10 entries (API reference), less than 256 KB in all (user guide, "Calculating PutEvents event entry
# size"). PutRecords: 500 records; 10 MiB since 2025, 5 MiB before: the smaller is right everywhere.
BUS_ENTRIES, BUS_BYTES = 10, 262_144 - 1
STREAM_ENTRIES, STREAM_BYTES = 500, 5 * 1_048_576


class Refusal(NamedTuple):
    """Why the service did not take an entry."""

    code: str
    message: str


def refusal(answer: Mapping[str, Any]) -> Refusal | None:
    """What PutEvents or PutRecords answers for one entry; None where it was taken."""
    code = answer.get("ErrorCode")
    return None if code is None else Refusal(str(code), str(answer.get("ErrorMessage", "")))


def put_events_entry(
    event: str,
    key: str,
    detail: Mapping[str, Any],
    bus: str,
    *,
    source: str = SOURCE,
    further: Sequence[str] = (),
) -> dict[str, Any]:
    """An entry of PutEvents; its time is left to the bus. `further` are resources after the device's key."""
    return {
        "Source": source,
        "DetailType": event,
        "Resources": [key, *further],
        "Detail": msgspec.json.encode(detail).decode(),
        "EventBusName": bus,
    }


def put_events_size(entry: Mapping[str, Any]) -> int:
    """An entry's size in bytes as EventBridge counts it (user guide, "Calculating PutEvents event entry size")."""
    texts = (entry["Source"], entry["DetailType"], entry["Detail"], *entry["Resources"])
    return sum(len(text.encode()) for text in texts) + (14 if "Time" in entry else 0)


def envelope(
    event: str, key: str, detail: Mapping[str, Any], *, id: str, time: datetime, region: str, account: str
) -> bytes:
    """The event as EventBridge hands it to its targets; its `time` has whole seconds."""
    return msgspec.json.encode(
        {
            "version": "0",
            "id": id,
            "detail-type": event,
            "source": SOURCE,
            "account": account,
            "time": time.replace(microsecond=0),
            "region": region,
            "resources": [key],
            "detail": detail,
        }
    )
