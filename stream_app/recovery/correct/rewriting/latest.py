"""Corrects the latest value of a device if it comes from the corrected row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

from stream_app.aws.conditional_writes import met
from stream_app.model.event import Event
from stream_app.model.record import Position
from stream_app.sinks.dynamodb import KEY, batch_get, latest_key, time_field, to_value

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class LatestChange(NamedTuple):
    """The fields that a correction changed in the row of a position."""

    device: str
    position: Position
    fields: Mapping[str, object]


# Takes an event and changes; returns for each whether the device's latest value came from its row.
CorrectLatest = Callable[[Event, Sequence[LatestChange]], list[bool]]

_IS_FROM_ROW = "#shard = :shard AND #sequence = :sequence AND #sub = :sub"
_POSITION = ("shard", "sequence", "sub")
_SERIALIZER, _DESERIALIZER = TypeSerializer(), TypeDeserializer()


def no_latest_values(_event: Event, changes: Sequence[LatestChange]) -> list[bool]:
    """Correct nothing: for applications that do not store latest values."""
    return [False] * len(changes)


def latest_in(dynamodb: DynamoDBClient, table: str) -> CorrectLatest:
    """Return a function that corrects items of `sinks.dynamodb.LatestSink`.

    Idempotent; raises what boto3 raises. Only items that come from a corrected row are written. Such an item stays
    the latest one even if the correction changes its time, because it still represents the same record.
    """

    def correct(event: Event, changes: Sequence[LatestChange]) -> list[bool]:
        devices = sorted({change.device for change in changes if change.fields})
        at = _positions(dynamodb, table, event, devices)
        return [
            bool(change.fields)
            and at.get(change.device) == change.position
            and _correct(dynamodb, table, event, change)
            for change in changes
        ]

    return correct


def _positions(
    dynamodb: DynamoDBClient, table: str, event: Event, devices: Sequence[str]
) -> dict[str, Position]:
    """Return the position of the row that each device's latest value comes from."""
    keys = {latest_key(event.name, device): device for device in devices}
    found = {}
    for item in batch_get(dynamodb, table, [{KEY: {"S": key}} for key in keys]):
        shard, sequence, sub = (_DESERIALIZER.deserialize(item[name]) for name in _POSITION)
        found[keys[item[KEY]["S"]]] = Position(shard, sequence, int(sub))
    return found


def _correct(dynamodb: DynamoDBClient, table: str, event: Event, change: LatestChange) -> bool:
    where = {name: getattr(change.position, name) for name in _POSITION}
    names = {"#values": "values", **{f"#{name}": name for name in where}}
    values = {f":{name}": value for name, value in where.items()}
    update = _update(change.fields, event, names, values)
    return met(
        dynamodb.update_item,
        TableName=table,
        Key={KEY: {"S": latest_key(event.name, change.device)}},
        UpdateExpression=update,
        ConditionExpression=_IS_FROM_ROW,
        ExpressionAttributeNames=names,
        ExpressionAttributeValues={name: _SERIALIZER.serialize(v) for name, v in values.items()},
    )


def _update(
    columns: Mapping[str, object], event: Event, names: dict[str, str], values: dict[str, object]
) -> str:
    """Return the update expression; add the names and values that it uses to `names` and `values`."""
    to_set, to_remove = list[str](), list[str]()
    for at, (column, value) in enumerate(columns.items()):
        names[f"#c{at}"] = column
        plain = to_value(value)
        if plain is None:
            to_remove.append(f"#values.#c{at}")
            continue
        values[f":c{at}"] = plain
        to_set.append(f"#values.#c{at} = :c{at}")
        if column == time_field(event) and isinstance(value, datetime):
            names["#time"] = "time"
            to_set.append(f"#time = :c{at}")
    parts = (("SET", to_set), ("REMOVE", to_remove))
    return " ".join(f"{verb} {', '.join(what)}" for verb, what in parts if what)
