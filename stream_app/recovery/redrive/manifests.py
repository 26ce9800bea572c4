"""Outcome of a stream position according to the manifest of its segment."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from stream_app.aws.objects import get, keys
from stream_app.model.record import Position
from stream_app.model.segment import position_from_token, token
from stream_app.recovery.bounded import decoded
from stream_app.sinks.s3 import SEGMENTS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class _End(msgspec.Struct, frozen=True):
    position: str


class Manifest(msgspec.Struct, frozen=True):
    """The fields of a segment's manifest that determine the outcome of its positions."""

    first: _End
    last: _End
    repeated: list[str]
    parked: dict[str, list[str]]


class PositionOutcome(NamedTuple):
    """Parked under `code`, or stored if that is None; `repeated` if the same id had been stored before."""

    code: str | None
    repeated: bool = False


class Manifests:
    """The manifests of one shard of a consumer: listed once, and each read at most once."""

    def __init__(self, s3: S3Client, bucket: str, consumer: str, shard: str) -> None:
        self._s3, self._bucket, self._shard = s3, bucket, shard
        prefix = f"{SEGMENTS}{consumer}/{shard}/"
        firsts = (
            (_order(key.removeprefix(prefix).removesuffix(".json")), key) for key in keys(s3, bucket, prefix)
        )
        self._keys: Sequence[tuple[tuple[int, int], str]] = sorted(
            (order, key) for order, key in firsts if order is not None
        )
        self._read: dict[str, Manifest | None] = {}

    def lookup(self, position: Position) -> PositionOutcome | None:
        """Return the outcome of a position, None if no manifest covers it yet. Raises boto3 errors."""
        at = bisect.bisect_right(self._keys, position.order, key=lambda pair: pair[0]) - 1
        found = self._manifest(self._keys[at][1]) if at >= 0 else None
        if found is None or position.order > position_from_token(self._shard, found.last.position).order:
            return None
        here = token(position)
        code = next((code for code, parked in found.parked.items() if here in parked), None)
        return PositionOutcome(code, here in found.repeated)

    def _manifest(self, key: str) -> Manifest | None:
        if key not in self._read:
            body = get(self._s3, self._bucket, key)
            self._read[key] = None if body is None else parse(body)
        return self._read[key]


def parse(body: bytes) -> Manifest | None:
    """Parse a manifest; None if it is not valid, in which case the outcome of its positions stays unknown."""
    try:
        manifest = decoded(body, Manifest)
        position_from_token("", manifest.last.position)
    except ValueError:
        return None
    return manifest


def _order(text: str) -> tuple[int, int] | None:
    try:
        return position_from_token("", text).order
    except ValueError:
        return None
