"""Requests that carry sendings: how they are cut, put, and put again where the service refused a part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Any, NamedTuple

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
from stream_app.errors import TRANSIENT_CODES, FatalError, code_of, is_transient
from stream_app.ingest.envelope import ENVELOPE, Encode, Route, Sending

Body = dict[str, Any]


class Entry(NamedTuple):
    """One entry of a request, its size in bytes as the service counts it, and what it came from."""

    sending: Sending
    body: Body
    size: int


@dataclass(frozen=True, slots=True)
class Sender:
    """A way in: what a request may hold, how an entry is made, how a request is put.

    `put` answers for each entry, in order: a Refusal, or None where it was taken.
    """

    route: Route
    where: str
    entries: int
    size: int
    build: Callable[[Sending, datetime], Entry]
    put: Callable[[list[Body]], Sequence[Refusal | None]]


def bus_sender(client: Any, bus: str) -> Sender:
    """Onto an EventBridge bus by PutEvents."""

    def build(sending: Sending, now: datetime) -> Entry:
        detail = _stamped(sending, now)
        if isinstance(detail, bytes):
            raise FatalError(f"{sending.name} is bytes, a bus takes JSON only")
        body = put_events_entry(sending.event, sending.key, detail, bus)
        return Entry(sending, body, put_events_size(body))

    def put(bodies: list[Body]) -> list[Refusal | None]:
        answer = client.put_events(Entries=bodies)
        return [refusal(entry) for entry in answer["Entries"]]

    return Sender("bus", f"bus {bus}", BUS_ENTRIES, BUS_BYTES, build, put)


def stream_sender(
    client: Any,
    stream: str,
    forms: Mapping[str, Encode],
    region: str,
    account: str,
    new_id: Callable[[], Any],
) -> Sender:
    """Straight onto a Kinesis stream by PutRecords, in the form that the sending asks for."""

    def build(sending: Sending, now: datetime) -> Entry:
        detail, event, key = _stamped(sending, now), sending.event, sending.key
        if isinstance(detail, bytes):
            data = detail
        elif sending.form == ENVELOPE:
            data = envelope(event, key, detail, id=str(new_id()), time=now, region=region, account=account)
        else:
            data = forms[sending.form](event, detail)
        return Entry(sending, {"Data": data, "PartitionKey": key}, len(data) + len(key.encode()))

    def put(bodies: list[Body]) -> list[Refusal | None]:
        answer = client.put_records(StreamName=stream, Records=bodies)
        if not answer.get("FailedRecordCount"):
            return [None] * len(answer["Records"])
        return [refusal(entry) for entry in answer["Records"]]

    return Sender("stream", f"stream {stream}", STREAM_ENTRIES, STREAM_BYTES, build, put)


def _stamped(sending: Sending, now: datetime) -> Mapping[str, Any] | bytes:
    if isinstance(sending.detail, bytes) or sending.sent is None:
        return sending.detail
    return {**sending.detail, sending.sent: now}


def requests(
    sendings: Iterable[Sending],
    door_of: Callable[[Sending], Sender],
    now: Callable[[], datetime],
    *,
    ordered: bool,
) -> Iterator[tuple[Sender, list[Entry]]]:
    """Consecutive sendings as requests within the limits of their doors, in order.

    Where `ordered`, a device is in a request once at most: what is refused can then be put again without having
    been overtaken. An entry is made when its request is next, so that it carries the time at which it leaves.
    """
    held: list[Entry] = []
    keys: set[str] = set()
    last: Sender | None = None
    size = 0
    for sending in sendings:
        sender = door_of(sending)
        full = sender is not last or len(held) == sender.entries or (ordered and sending.key in keys)
        entry = None if full else _built(sender, sending, now())
        if last is not None and (entry is None or size + entry.size > sender.size):
            yield last, held
            held, keys, size, entry = [], set(), 0, None
        entry = entry or _built(sender, sending, now())
        held.append(entry)
        keys.add(sending.key)
        size, last = size + entry.size, sender
    if last is not None:
        yield last, held


def _built(sender: Sender, sending: Sending, now: datetime) -> Entry:
    entry = sender.build(sending, now)
    if entry.size > sender.size:
        raise FatalError(f"{sending.name} has {entry.size} bytes, {sender.where} takes {sender.size}")
    return entry


def deliver(
    sender: Sender,
    entries: Sequence[Entry],
    policy: Policy,
    pause: Callable[[float], object],
    rng: Random,
    stopped: Callable[[], bool],
) -> tuple[list[Entry], int]:
    """Put a request until every entry is taken; only what was refused is put again, in its order.

    Returns the entries that are left, which happens only when `stopped` in the middle, and how many were put
    again. Raises FatalError, naming the entry, when one can never
    be taken or the retries are spent.
    """
    left, again = list(entries), 0
    for attempt in range(1, policy.attempts + 1):
        refusals = _put(sender, left)
        refused = [(entry, why) for entry, why in zip(left, refusals, strict=True) if why is not None]
        for entry, why in refused:
            if why.code not in TRANSIENT_CODES or attempt == policy.attempts:
                raise FatalError(
                    f"{entry.sending.name} was not taken by {sender.where} in {attempt} attempts: {why.code}"
                    + (f", {why.message}" if why.message else "")
                )
        left = [entry for entry, _ in refused]
        if not left or stopped():
            break
        pause(policy.pause(attempt - 1, rng))
        if stopped():
            break
        again += len(left)
    return left, again


def _put(sender: Sender, entries: Sequence[Entry]) -> Sequence[Refusal | None]:
    try:
        return sender.put([entry.body for entry in entries])
    except Exception as error:
        why = code_of(error) or type(error).__name__
        if not is_transient(error):
            first = entries[0].sending.name
            message = f"{sender.where} refused a request of {len(entries)}, the first is {first}: {why}"
            raise FatalError(message) from error
        # A code that counts as transient, whatever the network called it.
        return [Refusal(why if why in TRANSIENT_CODES else "ServiceUnavailable", why)] * len(entries)
