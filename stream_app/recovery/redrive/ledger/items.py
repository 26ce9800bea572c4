"""An attempt at sending a record again, and its form in the history table."""

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


class State(StrEnum):
    """What became of an attempt.

    `claimed`: somebody is at it, or died over it. `sent`: the target took it. `refused`: the target never will.
    `held`: it may have been sent, and a second copy could not be told; a person decides. `processed`: the pipeline
    has stored it. `failed`: the pipeline parked it again. `discarded`: a person gave the record up.
    """

    CLAIMED = "claimed"
    SENT = "sent"
    REFUSED = "refused"
    HELD = "held"
    PROCESSED = "processed"
    FAILED = "failed"
    DISCARDED = "discarded"


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One attempt at a record. Times are in ms since the epoch.

    `root` and `attempt` are its lineage; `failure` is the key of the failure that was sent, or the position of a
    record that was sent once more behind it. By `event`, `device` and `id` the pipeline knows it. `owner` may work
    on it until `until`.
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
        """Which attempt at which record."""
        return Lineage(self.root, self.attempt)


def serialized(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values in DynamoDB's form."""
    return {name: _SERIALIZER.serialize(value) for name, value in values.items()}


def key_of(lineage: Lineage) -> dict[str, Any]:
    """The key of an attempt's item."""
    return serialized({"pk": f"{_ATTEMPTS}{lineage.root}", "sk": f"{lineage.attempt:06d}"})


def partition_of(root: str) -> str:
    """The partition that holds all attempts at a record, in order."""
    return f"{_ATTEMPTS}{root}"


def to_item(attempt: Attempt) -> dict[str, Any]:
    """The item of an attempt."""
    return {**key_of(attempt.lineage), **serialized(msgspec.to_builtins(attempt))}


def from_item(item: Mapping[str, Any]) -> Attempt:
    """The attempt in an item. Raises FatalError where the item is not one."""
    try:
        values = {name: _plain(_DESERIALIZER.deserialize(value)) for name, value in item.items()}
        attempt = msgspec.convert(values, Attempt)
    except _UNREADABLE as error:
        raise FatalError(f"an item of the ledger is not an attempt: {error}") from error
    if not (is_time(attempt.claimed_at) and is_time(attempt.settled_at)):
        raise FatalError("an item of the ledger is not an attempt: its time is none")
    return attempt


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, Decimal) else value


def place_key(stream: str, shard: str, sequence: str) -> dict[str, Any]:
    """The key of the item that says which attempt a position of a stream is; for bytes that carry no lineage."""
    return serialized({"pk": f"{_PLACES}{stream}/{shard}/{sequence}", "sk": _PLACE})


def place_item(stream: str, receipt: Mapping[str, str], lineage: Lineage) -> dict[str, Any]:
    """That item."""
    key = place_key(stream, receipt["shard"], receipt["sequence"])
    return {**key, **serialized({"root": lineage.root, "attempt": lineage.attempt})}


def place_of(item: Mapping[str, Any]) -> Lineage:
    """The lineage in an item of `place_item`. Raises FatalError where the item is not one."""
    try:
        values = {name: _plain(_DESERIALIZER.deserialize(item[name])) for name in ("root", "attempt")}
        return msgspec.convert((values["root"], values["attempt"]), Lineage)
    except _UNREADABLE as error:
        raise FatalError(f"an item of the ledger is not a place: {error}") from error
