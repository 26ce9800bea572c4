"""Stores alerts on S3 that the bus did not accept before their checkpoint; they are sent later."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from stream_app.aws import objects
from stream_app.consumer.alerting.alerts import Alert
from stream_app.model.record import Position
from stream_app.model.segment import token

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ALERTS = "alerts/"
KIND = "stream-app.alerts"
_NAME = re.compile(r"[0-9]+(\.[0-9]+)?-[0-9]+(\.[0-9]+)?\.json")


class AlertStore(Protocol):
    """Storage of unsent alerts by shard, under names that consist of positions."""

    def save(self, shard: str, name: str, alerts: Sequence[Alert]) -> None:
        """Store alerts; idempotent."""
        ...

    def load(self, shard: str, name: str) -> list[Alert]:
        """Return the alerts of that name; an empty list if there is no such object."""
        ...

    def names(self, shard: str) -> list[str]:
        """Return the names of all stored alerts of a shard, in the order of positions."""
        ...

    def forget(self, shard: str, name: str) -> None:
        """Delete alerts that were sent; a missing object is no error."""
        ...


class _File(msgspec.Struct, tag=KIND, tag_field="kind"):
    alerts: list[Alert]
    version: int = 1


def name_of(alerts: Sequence[Alert]) -> str:
    """Return `<first position>-<last position>.json`.

    Another consumer that writes an object of the same name has the same alerts in this range, or has sent the others.
    """
    positions = sorted(map(position, alerts), key=lambda at: at.order)
    return f"{token(positions[0])}-{token(positions[-1])}.json"


def position(alert: Alert) -> Position:
    """Return the position of the alert's record."""
    return Position(alert["shard"], alert["sequence"], alert["sub"])


class S3Alerts:
    """Stores objects `alerts/<consumer>/<shard>/<name>` (protocol `AlertStore`)."""

    def __init__(self, s3: S3Client, bucket: str, consumer: str) -> None:
        self._s3, self._bucket, self._prefix = s3, bucket, f"{ALERTS}{consumer}/"

    def save(self, shard: str, name: str, alerts: Sequence[Alert]) -> None:
        """Overwrite the object."""
        body = msgspec.json.encode(_File(list(alerts)))
        self._s3.put_object(
            Bucket=self._bucket, Key=self._key(shard, name), Body=body, ContentType="application/json"
        )

    def load(self, shard: str, name: str) -> list[Alert]:
        """Return the alerts. Raises msgspec.DecodeError if the object does not contain alerts."""
        body = objects.get(self._s3, self._bucket, self._key(shard, name))
        return [] if body is None else msgspec.json.decode(body, type=_File).alerts

    def names(self, shard: str) -> list[str]:
        """Return the names in order; other objects under the prefix are ignored."""
        prefix = f"{self._prefix}{shard}/"
        found = [key.removeprefix(prefix) for key in objects.keys(self._s3, self._bucket, prefix)]
        return sorted(filter(_NAME.fullmatch, found), key=lambda name: (len(name.partition("-")[0]), name))

    def forget(self, shard: str, name: str) -> None:
        """Delete the object."""
        self._s3.delete_object(Bucket=self._bucket, Key=self._key(shard, name))

    def _key(self, shard: str, name: str) -> str:
        return f"{self._prefix}{shard}/{name}"
