"""Bus and stream as targets: back into the pipeline, with the lineage beside the event's fields."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from stream_app.aws.request_sizes import (
    BUS_BYTES,
    BUS_ENTRIES,
    SOURCE,
    STREAM_BYTES,
    STREAM_ENTRIES,
    put_events_entry,
    put_events_size,
    refusal,
)
from stream_app.errors import TRANSIENT_CODES, aws_error_code, is_transient
from stream_app.pipeline.registry import Registry
from stream_app.recovery.redrive.message import as_envelope, event_id, further, identified
from stream_app.recovery.redrive.targets.target import (
    Answer,
    Barred,
    Delivered,
    Draft,
    Later,
    Parcel,
    Refused,
    Unfit,
)

# PutEvents takes ten at a time; a wave of five requests spares reading and writing the ledger one by one.
_BUS_BATCH, _STREAM_BATCH = 5 * BUS_ENTRIES, 100
# 1 MiB was the most for years, and still is by default; it counts the partition key.
_RECORD_BYTES = 1_048_576
_AVRO = b"\xc3\x01"
# The service answered, and does not know itself whether it took the entry.
_UNSURE = frozenset({"InternalFailure", "InternalServerError", "InternalError", "InternalException"})


@dataclass(frozen=True, slots=True)
class BusTarget:
    """An EventBridge bus, by PutEvents: the way the devices' own events come."""

    events: Any
    bus: str
    registry: Registry

    @property
    def where(self) -> str:
        """The bus by name."""
        return f"bus {self.bus}"

    @property
    def batch(self) -> int:
        """Five requests."""
        return _BUS_BATCH

    def parcel(self, draft: Draft) -> Parcel | Unfit:
        """An entry of PutEvents. Its source is the one that it came with, so that the same rules match."""
        if draft.message is None or draft.message.event is None:
            return Unfit("a bus takes JSON of a named type only")
        message = identified(draft.message, self.registry, draft.token)
        given = (message.envelope or {}).get("source")
        source = given if isinstance(given, str) and given and not given.startswith("aws.") else SOURCE
        body = put_events_entry(
            draft.message.event,
            draft.key,
            message.detail,
            self.bus,
            source=source,
            further=further(message, draft.lineage),
        )
        size = put_events_size(body)
        if size > BUS_BYTES:
            return Unfit(f"{size} bytes are too many for a bus, which takes {BUS_BYTES}")
        return Parcel(draft.key, body, size, event_id(message, self.registry) is not None, True)

    def send(self, parcels: Sequence[Parcel]) -> Iterator[Answer]:
        """One try by PutEvents."""
        for part in _requests(parcels, BUS_ENTRIES, BUS_BYTES):
            yield from _put(lambda bodies: self.events.put_events(Entries=bodies)["Entries"], part)

    def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True, slots=True)
class StreamTarget:
    """A Kinesis stream, by PutRecords. What cannot carry its lineage goes as the very bytes that came."""

    kinesis: Any
    stream: str
    registry: Registry
    region: str
    now: Callable[[], datetime]

    @property
    def where(self) -> str:
        """The stream by name."""
        return f"stream {self.stream}"

    @property
    def batch(self) -> int:
        """One request."""
        return _STREAM_BATCH

    def parcel(self, draft: Draft) -> Parcel | Unfit:
        """A record of PutRecords: an envelope with its lineage, or, for what is not JSON, the bytes that came."""
        message = draft.message
        as_bytes = message is None or message.event is None or (not draft.mended and _is_avro(draft.data))
        if message is None or as_bytes:
            data, known = draft.data, message is not None and event_id(message, self.registry) is not None
        else:
            whole = identified(message, self.registry, draft.token)
            known = event_id(whole, self.registry) is not None
            data = as_envelope(
                whole, draft.key, draft.lineage, id=draft.token, now=self.now(), region=self.region
            )
        size = len(data) + len(draft.key.encode("utf-8", "surrogatepass"))
        if size > _RECORD_BYTES:
            return Unfit(f"{size} bytes are too many for a stream, which takes {_RECORD_BYTES}")
        return Parcel(draft.key, {"Data": data, "PartitionKey": draft.key}, size, known, not as_bytes)

    def send(self, parcels: Sequence[Parcel]) -> Iterator[Answer]:
        """One try by PutRecords; the receipts say where the records are."""
        for part in _requests(parcels, STREAM_ENTRIES, STREAM_BYTES):
            yield from _put(self._put, part)

    def _put(self, bodies: list[Any]) -> Sequence[dict[str, Any]]:
        found: Sequence[dict[str, Any]] = self.kinesis.put_records(StreamName=self.stream, Records=bodies)[
            "Records"
        ]
        return found

    def close(self) -> None:
        """Nothing is held."""


def _is_avro(data: bytes) -> bool:
    return data.startswith(_AVRO)


def _requests(parcels: Sequence[Parcel], most: int, largest: int) -> Iterator[list[Parcel]]:
    """Consecutive parcels within what a request may hold."""
    held: list[Parcel] = []
    size = 0
    for parcel in parcels:
        if held and (len(held) == most or size + parcel.size > largest):
            yield held
            held, size = [], 0
        held.append(parcel)
        size += parcel.size
    if held:
        yield held


def _put(put: Callable[[list[Any]], Sequence[dict[str, Any]]], parcels: Sequence[Parcel]) -> list[Answer]:
    try:
        answered = put([parcel.body for parcel in parcels])
    except Exception as error:
        return [_trouble(error)] * len(parcels)
    return [_answer(entry) for entry in answered]


def _trouble(error: Exception) -> Answer:
    """What a request that failed as a whole means for each of its entries."""
    why = aws_error_code(error) or type(error).__name__
    if not is_transient(error):
        return Barred(why)
    response = getattr(error, "response", None) or {}
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    # Refused with a 4xx it was not taken; after a lost answer nobody knows.
    return Later(why, doubt=not 400 <= status < 500)


def _answer(entry: dict[str, Any]) -> Answer:
    refused = refusal(entry)
    if refused is None:
        names = {"EventId": "id", "ShardId": "shard", "SequenceNumber": "sequence"}
        return Delivered({short: str(entry[name]) for name, short in names.items() if entry.get(name)})
    why = refused.code + (f": {refused.message[:200]}" if refused.message else "")
    if refused.code in TRANSIENT_CODES or refused.code in _UNSURE:
        return Later(why, doubt=refused.code in _UNSURE)
    return Refused(why)
