"""What became of a position of the stream, as the manifest of its segment says."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from stream_app.aws.objects import get, keys
from stream_app.model.record import Position
from stream_app.model.segment import position_from_token, token
from stream_app.recovery.bounded import decoded
from stream_app.sinks.s3 import SEGMENTS


class _End(msgspec.Struct, frozen=True):
    position: str


class Manifest(msgspec.Struct, frozen=True):
    """The part of a segment's manifest that tells what became of its positions."""

    first: _End
    last: _End
    repeated: list[str]
    parked: dict[str, list[str]]


class Fate(NamedTuple):
    """Stored (or, if `repeated`, stored before under the same id), or parked under `code`."""

    code: str | None
    repeated: bool = False


class Manifests:
    """The manifests of one shard of a consumer, listed once, each read once."""

    def __init__(self, s3: Any, bucket: str, consumer: str, shard: str) -> None:
        self._s3, self._bucket, self._shard = s3, bucket, shard
        prefix = f"{SEGMENTS}{consumer}/{shard}/"
        firsts = (
            (_order(key.removeprefix(prefix).removesuffix(".json")), key) for key in keys(s3, bucket, prefix)
        )
        self._keys: Sequence[tuple[tuple[int, int], str]] = sorted(
            (order, key) for order, key in firsts if order is not None
        )
        self._read: dict[str, Manifest | None] = {}

    def fate(self, position: Position) -> Fate | None:
        """What became of it, None while no manifest speaks of it. Raises what boto3 raises."""
        at = bisect.bisect_right(self._keys, position.order, key=lambda pair: pair[0]) - 1
        found = self._manifest(self._keys[at][1]) if at >= 0 else None
        if found is None or position.order > position_from_token(self._shard, found.last.position).order:
            return None
        here = token(position)
        code = next((code for code, parked in found.parked.items() if here in parked), None)
        return Fate(code, here in found.repeated)

    def _manifest(self, key: str) -> Manifest | None:
        if key not in self._read:
            body = get(self._s3, self._bucket, key)
            self._read[key] = None if body is None else parse(body)
        return self._read[key]


def parse(body: bytes) -> Manifest | None:
    """The manifest in an object's body, None where there is none, which says nothing of any position."""
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
