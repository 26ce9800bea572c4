"""EventBridge bus and Kinesis stream as targets: the records return to the pipeline and carry their lineage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

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
from stream_app.recovery.redrive.message import Message, as_envelope, event_id, extra_resources, with_id
from stream_app.recovery.redrive.targets.target import (
    Answer,
    Delivered,
    Draft,
    EncodedRecord,
    Refused,
    Retryable,
    SenderRejected,
    Unsupported,
)

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_kinesis import KinesisClient

# PutEvents takes 10 entries. A batch of five requests saves round trips to the ledger.
_BUS_BATCH, _STREAM_BATCH = 5 * BUS_ENTRIES, 100
# The default limit of a Kinesis record is 1 MiB, partition key included.
_RECORD_BYTES = 1_048_576
_AVRO = b"\xc3\x01"
# With these codes the service itself does not know whether it accepted the entry.
_UNKNOWN_OUTCOME = frozenset({"InternalFailure", "InternalServerError", "InternalError", "InternalException"})
_RECEIPT = {"EventId": "id", "ShardId": "shard", "SequenceNumber": "sequence"}
# Sends request entries and returns one result entry for each, in the same order.
_PutEntries = Callable[[list[Any]], Sequence[Mapping[str, Any]]]  # entries of two services: no common type


@dataclass(frozen=True, slots=True)
class BusTarget:
    """An EventBridge bus, written with PutEvents, as the devices' own events are."""

    events: EventBridgeClient
    bus: str
    registry: Registry

    @property
    def where(self) -> str:
        """The bus by name."""
        return f"bus {self.bus}"

    @property
    def batch(self) -> int:
        """The number of records in five requests."""
        return _BUS_BATCH

    def encode(self, draft: Draft) -> EncodedRecord | Unsupported:
        """Build a PutEvents entry with the source of the original event, so that the same rules match."""
        if draft.message is None or draft.message.event is None:
            return Unsupported("a bus takes only JSON with an event type")
        message = with_id(draft.message, self.registry, draft.token)
        body = put_events_entry(
            draft.message.event,
            draft.key,
            message.detail,
            self.bus,
            source=_source(message),
            further=extra_resources(message, draft.lineage),
        )
        size = put_events_size(body)
        if size > BUS_BYTES:
            return Unsupported(f"{size} bytes exceed the limit of a bus ({BUS_BYTES})")
        return EncodedRecord(draft.key, body, size, event_id(message, self.registry) is not None, True)

    def send(self, records: Sequence[EncodedRecord]) -> Iterator[Answer]:
        """Send each record once with PutEvents."""
        for part in _requests(records, BUS_ENTRIES, BUS_BYTES):
            yield from _put(lambda entries: self.events.put_events(Entries=entries)["Entries"], part)

    def close(self) -> None:
        """Do nothing: there are no resources to release."""


def _source(message: Message) -> str:
    source = (message.envelope or {}).get("source")
    # PutEvents refuses sources that begin with `aws.`.
    return source if isinstance(source, str) and source and not source.startswith("aws.") else SOURCE


@dataclass(frozen=True, slots=True)
class StreamTarget:
    """A Kinesis stream, written with PutRecords. Records that cannot carry a lineage are sent byte for byte."""

    kinesis: KinesisClient
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
        """The number of records in one request."""
        return _STREAM_BATCH

    def encode(self, draft: Draft) -> EncodedRecord | Unsupported:
        """Build a PutRecords entry: an envelope with the lineage, or for anything but JSON the original bytes."""
        message = draft.message
        unchanged = message is None or message.event is None or (not draft.repaired and _is_avro(draft.data))
        if message is None or unchanged:
            data = draft.data
            has_id = message is not None and event_id(message, self.registry) is not None
        else:
            identified = with_id(message, self.registry, draft.token)
            has_id = event_id(identified, self.registry) is not None
            data = as_envelope(
                identified, draft.key, draft.lineage, id=draft.token, now=self.now(), region=self.region
            )
        size = len(data) + len(draft.key.encode("utf-8", "surrogatepass"))
        if size > _RECORD_BYTES:
            return Unsupported(f"{size} bytes exceed the limit of a stream ({_RECORD_BYTES})")
        return EncodedRecord(
            draft.key, {"Data": data, "PartitionKey": draft.key}, size, has_id, not unchanged
        )

    def send(self, records: Sequence[EncodedRecord]) -> Iterator[Answer]:
        """Send each record once with PutRecords; the receipts contain the positions in the stream."""
        for part in _requests(records, STREAM_ENTRIES, STREAM_BYTES):
            yield from _put(
                lambda entries: self.kinesis.put_records(StreamName=self.stream, Records=entries)["Records"],
                part,
            )

    def close(self) -> None:
        """Do nothing: there are no resources to release."""


def _is_avro(data: bytes) -> bool:
    return data.startswith(_AVRO)


def _requests(
    records: Sequence[EncodedRecord], max_entries: int, max_bytes: int
) -> Iterator[list[EncodedRecord]]:
    """Split records into requests within the service's limits, in order."""
    request: list[EncodedRecord] = []
    size = 0
    for record in records:
        if request and (len(request) == max_entries or size + record.size > max_bytes):
            yield request
            request, size = [], 0
        request.append(record)
        size += record.size
    if request:
        yield request


def _put(put: _PutEntries, records: Sequence[EncodedRecord]) -> list[Answer]:
    try:
        results = put([record.body for record in records])
    except Exception as error:
        return [_request_error(error)] * len(records)
    return [_answer(entry) for entry in results]


def _request_error(error: Exception) -> Answer:
    """Return the answer for each entry of a request that failed as a whole."""
    why = aws_error_code(error) or type(error).__name__
    if not is_transient(error):
        return SenderRejected(why)
    response = getattr(error, "response", None) or {}
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    # A 4xx status means that nothing was accepted. After a lost response the outcome is unknown.
    return Retryable(why, doubt=not 400 <= status < 500)


def _answer(entry: Mapping[str, object]) -> Answer:
    refused = refusal(entry)
    if refused is None:
        return Delivered({short: str(entry[name]) for name, short in _RECEIPT.items() if entry.get(name)})
    why = refused.code + (f": {refused.message[:200]}" if refused.message else "")
    if refused.code in TRANSIENT_CODES or refused.code in _UNKNOWN_OUTCOME:
        return Retryable(why, doubt=refused.code in _UNKNOWN_OUTCOME)
    return Refused(why)
