"""Alerts on S3 that the bus did not accept before their checkpoint; they are sent later."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from stream_app.aws import objects
from stream_app.model.record import Position
from stream_app.model.segment import token

ALERTS = "alerts/"
KIND = "stream-app.alerts"
_NAME = re.compile(r"[0-9]+(\.[0-9]+)?-[0-9]+(\.[0-9]+)?\.json")

Alert = Mapping[str, Any]


class AlertStore(Protocol):
    """Where unsent alerts are kept, by shard and by a name that is made of positions."""

    def save(self, shard: str, name: str, alerts: Sequence[Alert]) -> None:
        """Keep them; safe to repeat."""
        ...

    def load(self, shard: str, name: str) -> list[dict[str, Any]]:
        """The alerts of that name, none where there is no such object."""
        ...

    def names(self, shard: str) -> list[str]:
        """The names of all that is kept of a shard, in the order of positions."""
        ...

    def forget(self, shard: str, name: str) -> None:
        """Drop what was sent; an absent one is no error."""
        ...


class _File(msgspec.Struct, tag=KIND, tag_field="kind"):
    alerts: list[dict[str, Any]]
    version: int = 1


def name_of(alerts: Sequence[Alert]) -> str:
    """`<first position>-<last position>.json`.

    Who writes another object of that name knows the same alerts in between, or has sent those that it lacks.
    """
    positions = sorted(map(position, alerts), key=lambda at: at.order)
    return f"{token(positions[0])}-{token(positions[-1])}.json"


def position(alert: Alert) -> Position:
    """The record that an alert is about."""
    return Position(alert["shard"], alert["sequence"], alert["sub"])


class S3Alerts:
    """Objects `alerts/<consumer>/<shard>/<name>` (protocol `AlertStore`)."""

    def __init__(self, s3: Any, bucket: str, consumer: str) -> None:
        self._s3, self._bucket, self._prefix = s3, bucket, f"{ALERTS}{consumer}/"

    def save(self, shard: str, name: str, alerts: Sequence[Alert]) -> None:
        """Overwrites."""
        body = msgspec.json.encode(_File([dict(alert) for alert in alerts]))
        self._s3.put_object(
            Bucket=self._bucket, Key=self._key(shard, name), Body=body, ContentType="application/json"
        )

    def load(self, shard: str, name: str) -> list[dict[str, Any]]:
        """Raises msgspec.DecodeError when the object is none of ours."""
        body = objects.get(self._s3, self._bucket, self._key(shard, name))
        return [] if body is None else msgspec.json.decode(body, type=_File).alerts

    def names(self, shard: str) -> list[str]:
        """Other objects under the prefix are passed over."""
        prefix = f"{self._prefix}{shard}/"
        found = [key.removeprefix(prefix) for key in objects.keys(self._s3, self._bucket, prefix)]
        return sorted(filter(_NAME.fullmatch, found), key=lambda name: (len(name.partition("-")[0]), name))

    def forget(self, shard: str, name: str) -> None:
        """Deletes."""
        self._s3.delete_object(Bucket=self._bucket, Key=self._key(shard, name))

    def _key(self, shard: str, name: str) -> str:
        return f"{self._prefix}{shard}/{name}"
