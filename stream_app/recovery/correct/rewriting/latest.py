"""The latest values of devices, corrected where the corrected row is still the latest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

from stream_app.aws.conditional_writes import met
from stream_app.model.event import Event
from stream_app.model.record import Position
from stream_app.sinks.dynamodb import KEY, batch_get, latest_key, time_field, to_value


class Change(NamedTuple):
    """The fields that a correction changed in the row of a position."""

    device: str
    position: Position
    fields: Mapping[str, Any]


# (event, changes) -> of each, whether the device's latest value was of its row.
Latest = Callable[[Event, Sequence[Change]], list[bool]]

_OF_IT = "#shard = :shard AND #sequence = :sequence AND #sub = :sub"
_PLACE = ("shard", "sequence", "sub")
_SERIALIZER, _DESERIALIZER = TypeSerializer(), TypeDeserializer()


def nowhere(_event: Event, changes: Sequence[Change]) -> list[bool]:
    """For applications that keep no latest values."""
    return [False] * len(changes)


def latest_in(dynamodb: Any, table: str) -> Latest:
    """Corrects items of `sinks.dynamodb.LatestSink`. Safe to repeat; raises what boto3 raises.

    Only items that are of a changed row are written. A row's standing stays, also where its time is corrected: it is
    still the same record, in the same place.
    """

    def correct(event: Event, changes: Sequence[Change]) -> list[bool]:
        devices = sorted({change.device for change in changes if change.fields})
        at = _positions(dynamodb, table, event, devices)
        return [
            bool(change.fields)
            and at.get(change.device) == change.position
            and _correct(dynamodb, table, event, change)
            for change in changes
        ]

    return correct


def _positions(dynamodb: Any, table: str, event: Event, devices: Sequence[str]) -> dict[str, Position]:
    """Of which row each device's latest value is."""
    keys = {latest_key(event.name, device): device for device in devices}
    found = {}
    for item in batch_get(dynamodb, table, [{KEY: {"S": key}} for key in keys]):
        shard, sequence, sub = (_DESERIALIZER.deserialize(item[name]) for name in _PLACE)
        found[keys[item[KEY]["S"]]] = Position(shard, sequence, int(sub))
    return found


def _correct(dynamodb: Any, table: str, event: Event, change: Change) -> bool:
    where = {name: getattr(change.position, name) for name in _PLACE}
    names = {"#values": "values", **{f"#{name}": name for name in where}}
    values = {f":{name}": value for name, value in where.items()}
    update = _update(change.fields, event, names, values)
    return met(
        dynamodb.update_item,
        TableName=table,
        Key={KEY: {"S": latest_key(event.name, change.device)}},
        UpdateExpression=update,
        ConditionExpression=_OF_IT,
        ExpressionAttributeNames=names,
        ExpressionAttributeValues={name: _SERIALIZER.serialize(v) for name, v in values.items()},
    )


def _update(columns: Mapping[str, Any], event: Event, names: dict[str, str], values: dict[str, Any]) -> str:
    """What to set and what to remove; the names and values that it uses are added to both."""
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
