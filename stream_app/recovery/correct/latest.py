"""The latest value of a device, corrected where the corrected row is still the latest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from boto3.dynamodb.types import TypeSerializer

from stream_app.event import Event
from stream_app.record import Position
from stream_app.sinks.conditions import met
from stream_app.sinks.dynamodb import KEY, latest_key, time_field, to_value

# (event, device, position, the columns that the correction changed) -> whether the device's latest value was of it.
Latest = Callable[[Event, str, Position, Mapping[str, Any]], bool]

_OF_IT = "#shard = :shard AND #sequence = :sequence AND #sub = :sub"
_SERIALIZER = TypeSerializer()


def nowhere(_event: Event, _device: str, _position: Position, _columns: Mapping[str, Any]) -> bool:
    """For applications that keep no latest values."""
    return False


def latest_in(dynamodb: Any, table: str) -> Latest:
    """Corrects items of `sinks.dynamodb.LatestSink`. Safe to repeat; raises what boto3 raises.

    A row's standing stays, also where its time is corrected: it is still the same record, in the same place.
    """

    def correct(event: Event, device: str, position: Position, columns: Mapping[str, Any]) -> bool:
        where = {"shard": position.shard, "sequence": position.sequence, "sub": position.sub}
        names = {"#values": "values", **{f"#{name}": name for name in where}}
        values = {f":{name}": value for name, value in where.items()}
        update = _update(columns, event, names, values)
        return met(
            dynamodb.update_item,
            TableName=table,
            Key={KEY: {"S": latest_key(event.name, device)}},
            UpdateExpression=update,
            ConditionExpression=_OF_IT,
            ExpressionAttributeNames=names,
            ExpressionAttributeValues={name: _SERIALIZER.serialize(v) for name, v in values.items()},
        )

    return correct


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
