"""Groups outgoing records into requests, sends them, and retries the rejected entries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from stream_app.aws.request_sizes import (
    BUS_BYTES,
    BUS_ENTRIES,
    STREAM_BYTES,
    STREAM_ENTRIES,
    Refusal,
    envelope,
    put_events_entry,
    put_events_size,
    refusal,
)
from stream_app.aws.retry import Policy
from stream_app.errors import TRANSIENT_CODES, FatalError, aws_error_code, is_transient
from stream_app.ingest.envelope import ENVELOPE, Detail, Encode, OutgoingRecord, Route

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_kinesis import KinesisClient

# An entry of PutEvents or PutRecords. Only the sender that builds it passes it to a client.
Body = Any


class Entry(NamedTuple):
    """One entry of a request, with its record and its size in bytes as calculated by the service."""

    record: OutgoingRecord
    body: Body
    size: int


@dataclass(frozen=True, slots=True)
class Sender:
    """A destination: the limits of its requests, and functions that build an entry and send a request.

    `put` returns the result of each entry in order: a Refusal, or None if it was accepted. `name` is for messages.
    """

    route: Route
    name: str
    entries: int
    size: int
    build: Callable[[OutgoingRecord, datetime], Entry]
    put: Callable[[list[Body]], Sequence[Refusal | None]]


def bus_sender(client: EventBridgeClient, bus: str) -> Sender:
    """Return a sender to an EventBridge bus, with PutEvents."""

    def build(record: OutgoingRecord, now: datetime) -> Entry:
        detail = _with_sent_time(record, now)
        if isinstance(detail, bytes):
            raise FatalError(f"{record.name} is binary, but an event bus accepts JSON only")
        body = put_events_entry(record.event, record.key, detail, bus)
        return Entry(record, body, put_events_size(body))

    def put(bodies: list[Body]) -> list[Refusal | None]:
        answer = client.put_events(Entries=bodies)
        return [refusal(entry) for entry in answer["Entries"]]

    return Sender("bus", f"bus {bus}", BUS_ENTRIES, BUS_BYTES, build, put)


def stream_sender(
    client: KinesisClient,
    stream: str,
    encoders: Mapping[str, Encode],
    region: str,
    account: str,
    new_id: Callable[[], object],
) -> Sender:
    """Return a sender to a Kinesis stream, with PutRecords, that encodes each record in its requested encoding."""

    def build(record: OutgoingRecord, now: datetime) -> Entry:
        detail, event, key = _with_sent_time(record, now), record.event, record.key
        if isinstance(detail, bytes):
            data = detail
        elif record.encoding == ENVELOPE:
            data = envelope(event, key, detail, id=str(new_id()), time=now, region=region, account=account)
        else:
            data = encoders[record.encoding](event, detail)
        return Entry(record, {"Data": data, "PartitionKey": key}, len(data) + len(key.encode()))

    def put(bodies: list[Body]) -> list[Refusal | None]:
        answer = client.put_records(StreamName=stream, Records=bodies)
        if not answer.get("FailedRecordCount"):
            return [None] * len(answer["Records"])
        return [refusal(entry) for entry in answer["Records"]]

    return Sender("stream", f"stream {stream}", STREAM_ENTRIES, STREAM_BYTES, build, put)


def _with_sent_time(record: OutgoingRecord, now: datetime) -> Detail | bytes:
    if isinstance(record.detail, bytes) or record.sent is None:
        return record.detail
    return {**record.detail, record.sent: now}


def requests(
    records: Iterable[OutgoingRecord],
    sender_of: Callable[[OutgoingRecord], Sender],
    now: Callable[[], datetime],
    *,
    ordered: bool,
) -> Iterator[tuple[Sender, list[Entry]]]:
    """Group consecutive records into requests within the limits of their senders, in order.

    If `ordered`, a request contains at most one record per device, so that a rejected record can be retried without
    being overtaken by a later one. An entry is built when its request is due, so that its sent time is accurate.
    """
    held: list[Entry] = []
    keys: set[str] = set()
    last: Sender | None = None
    size = 0
    for record in records:
        sender = sender_of(record)
        full = sender is not last or len(held) == sender.entries or (ordered and record.key in keys)
        entry = None if full else _build(sender, record, now())
        if last is not None and (entry is None or size + entry.size > sender.size):
            yield last, held
            held, keys, size, entry = [], set(), 0, None
        entry = entry or _build(sender, record, now())
        held.append(entry)
        keys.add(record.key)
        size, last = size + entry.size, sender
    if last is not None:
        yield last, held


def _build(sender: Sender, record: OutgoingRecord, now: datetime) -> Entry:
    entry = sender.build(record, now)
    if entry.size > sender.size:
        raise FatalError(f"{record.name} has {entry.size} bytes, but {sender.name} accepts {sender.size}")
    return entry


def deliver(
    sender: Sender,
    entries: Sequence[Entry],
    policy: Policy,
    pause: Callable[[float], object],
    rng: Random,
    stopped: Callable[[], bool],
) -> tuple[list[Entry], int]:
    """Send a request, and retry its rejected entries in order until all are accepted.

    Returns the entries that were not sent because `stopped` became true, and the number of retried entries. Raises
    FatalError, naming the entry, for a permanent error and when the retries are exhausted.
    """
    left, retried = list(entries), 0
    for attempt in range(1, policy.attempts + 1):
        refusals = _put(sender, left)
        refused = [(entry, why) for entry, why in zip(left, refusals, strict=True) if why is not None]
        for entry, why in refused:
            if why.code not in TRANSIENT_CODES or attempt == policy.attempts:
                raise FatalError(
                    f"{entry.record.name} was rejected by {sender.name} in {attempt} attempts: {why.code}"
                    + (f", {why.message}" if why.message else "")
                )
        left = [entry for entry, _ in refused]
        if not left or stopped():
            break
        pause(policy.pause(attempt - 1, rng))
        if stopped():
            break
        retried += len(left)
    return left, retried


def _put(sender: Sender, entries: Sequence[Entry]) -> Sequence[Refusal | None]:
    try:
        return sender.put([entry.body for entry in entries])
    except Exception as error:
        why = aws_error_code(error) or type(error).__name__
        if not is_transient(error):
            first = entries[0].record.name
            message = (
                f"{sender.name} rejected a request of {len(entries)} entries, the first is {first}: {why}"
            )
            raise FatalError(message) from error
        # Network errors have no AWS error code; this one is retriable.
        return [Refusal(why if why in TRANSIENT_CODES else "ServiceUnavailable", why)] * len(entries)
