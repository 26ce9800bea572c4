"""Redrive attempts and their items in the history table."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any

import msgspec
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

from stream_app.errors import FatalError
from stream_app.recovery.bounded import is_time
from stream_app.recovery.redrive.message import Lineage

_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, ArithmeticError)
_SERIALIZER, _DESERIALIZER = TypeSerializer(), TypeDeserializer()
_ATTEMPTS, _PLACES, _PLACE = "redrive#", "redriven-as#", "position"
# An item or key in DynamoDB's format, as boto3's stubs type it: each attribute is a one-entry dictionary.
Item = Mapping[str, Any]


class State(StrEnum):
    """State of an attempt.

    - `claimed`: an applier is sending the record, or died while it did.
    - `sent`: the target accepted the record.
    - `refused`: the target will never accept the record.
    - `held`: the record may have been sent and the receiver cannot recognize a second copy; a person must decide.
    - `processed`: the pipeline stored the record.
    - `failed`: the pipeline parked the record again.
    - `discarded`: a person excluded the record from redrives.
    """

    CLAIMED = "claimed"
    SENT = "sent"
    REFUSED = "refused"
    HELD = "held"
    PROCESSED = "processed"
    FAILED = "failed"
    DISCARDED = "discarded"


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One attempt to send a record again. Times are in milliseconds since the epoch.

    `root` and `attempt` are its lineage. `failure` is the key of the failure that was sent, or the position of a
    later record that was replayed after it. `event`, `device` and `id` identify the record in the pipeline. The
    claim of `owner` expires at `until`.
    """

    root: str
    attempt: int
    failure: str
    plan: str
    target: str
    token: str
    state: State
    owner: str = ""
    until: int = 0
    by: str = ""
    event: str | None = None
    device: str | None = None
    id: str | None = None
    claimed_at: int = 0
    settled_at: int = 0
    receipt: Mapping[str, str] = {}
    why: str = ""

    @property
    def lineage(self) -> Lineage:
        """The record and the number of the attempt."""
        return Lineage(self.root, self.attempt)


def serialized(values: Mapping[str, object]) -> Item:
    """Convert values to DynamoDB's format."""
    return {name: _SERIALIZER.serialize(value) for name, value in values.items()}


def key_of(lineage: Lineage) -> Item:
    """Return the key of an attempt's item."""
    return serialized({"pk": f"{_ATTEMPTS}{lineage.root}", "sk": f"{lineage.attempt:06d}"})


def partition_of(root: str) -> str:
    """Return the partition key of all attempts at a record; the sort key orders them."""
    return f"{_ATTEMPTS}{root}"


def to_item(attempt: Attempt) -> Item:
    """Return the item of an attempt."""
    return {**key_of(attempt.lineage), **serialized(msgspec.to_builtins(attempt))}


def from_item(item: Item) -> Attempt:
    """Parse the item of an attempt. Raises FatalError if it is malformed."""
    try:
        values = {name: _plain(_DESERIALIZER.deserialize(value)) for name, value in item.items()}
        attempt = msgspec.convert(values, Attempt)
    except _UNREADABLE as error:
        raise FatalError(f"malformed attempt in the ledger: {error}") from error
    if not (is_time(attempt.claimed_at) and is_time(attempt.settled_at)):
        raise FatalError("malformed attempt in the ledger: a time is out of range")
    return attempt


def _plain(value: object) -> object:
    return int(value) if isinstance(value, Decimal) else value


def place_key(stream: str, shard: str, sequence: str) -> Item:
    """Return the key of the item that maps a stream position to an attempt, for payloads that carry no lineage."""
    return serialized({"pk": f"{_PLACES}{stream}/{shard}/{sequence}", "sk": _PLACE})


def place_item(stream: str, receipt: Mapping[str, str], lineage: Lineage) -> Item:
    """Return the item that maps the position in a receipt to an attempt."""
    key = place_key(stream, receipt["shard"], receipt["sequence"])
    return {**key, **serialized({"root": lineage.root, "attempt": lineage.attempt})}


def place_of(item: Item) -> Lineage:
    """Parse an item of `place_item`. Raises FatalError if it is malformed."""
    try:
        values = {name: _plain(_DESERIALIZER.deserialize(item[name])) for name in ("root", "attempt")}
        return msgspec.convert((values["root"], values["attempt"]), Lineage)
    except _UNREADABLE as error:
        raise FatalError(f"malformed position in the ledger: {error}") from error
