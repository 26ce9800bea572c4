"""Forms and sizes of events for EventBridge and Kinesis, and the limits of their requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

if TYPE_CHECKING:
    from mypy_boto3_events.type_defs import PutEventsRequestEntryTypeDef

SOURCE: Final = "stream-app.devices"

# PutEvents: 10 entries (API reference), less than 256 KB in total (user guide, "Calculating PutEvents event entry
# size"). PutRecords: 500 records and 10 MiB since 2025, 5 MiB before; the smaller limit is valid everywhere.
BUS_ENTRIES, BUS_BYTES = 10, 262_144 - 1
STREAM_ENTRIES, STREAM_BYTES = 500, 5 * 1_048_576


class Refusal(NamedTuple):
    """The error of an entry that the service did not accept."""

    code: str
    message: str


def refusal(result: Mapping[str, object]) -> Refusal | None:
    """Return the error in a result entry of PutEvents or PutRecords; None if the entry was accepted."""
    code = result.get("ErrorCode")
    return None if code is None else Refusal(str(code), str(result.get("ErrorMessage", "")))


def put_events_entry(
    event: str,
    key: str,
    detail: Mapping[str, object],
    bus: str,
    *,
    source: str = SOURCE,
    further: Sequence[str] = (),
) -> PutEventsRequestEntryTypeDef:
    """Return an entry of PutEvents without a time. `further` are resources after the device's key."""
    return {
        "Source": source,
        "DetailType": event,
        "Resources": [key, *further],
        "Detail": msgspec.json.encode(detail).decode(),
        "EventBusName": bus,
    }


def put_events_size(entry: PutEventsRequestEntryTypeDef) -> int:
    """Return an entry's size in bytes (user guide, "Calculating PutEvents event entry size")."""
    texts = (entry["Source"], entry["DetailType"], entry["Detail"], *entry["Resources"])
    return sum(len(text.encode()) for text in texts) + (14 if "Time" in entry else 0)


def envelope(
    event: str, key: str, detail: Mapping[str, object], *, id: str, time: datetime, region: str, account: str
) -> bytes:
    """Return the event as EventBridge delivers it to targets; its `time` has whole seconds."""
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
