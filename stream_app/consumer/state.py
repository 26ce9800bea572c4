"""Snapshots of a shard's state, kept under the sequence number of the checkpoint that they belong to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from stream_app.errors import FatalError
from stream_app.pipeline.memory import Keep
from stream_app.pipeline.state import ShardState
from stream_app.record import Position
from stream_app.sinks import objects
from stream_app.sinks.segment import token

SHARD_END = "SHARD_END"
_SENTINELS = frozenset({"TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"})


class Snapshots(Protocol):
    """Where snapshots are kept, by shard and checkpoint name."""

    def load(self, shard: str, name: str) -> bytes | None:
        """The snapshot of that name, None where there is none."""
        ...

    def save(self, shard: str, name: str, snapshot: bytes) -> None:
        """Keep it; safe to repeat."""
        ...

    def forget(self, shard: str, name: str) -> None:
        """Drop one that no checkpoint can ask for any more."""
        ...


class Lineage(NamedTuple):
    """A shard's parents, and its range of hash keys (both ends belong to it)."""

    parents: tuple[str, ...]
    first_hash: int
    last_hash: int

    def keeps(self, key: object) -> bool:
        """Whether records of this device's key come to the shard: the partition key is the key as text."""
        return self.first_hash <= int.from_bytes(_md5(str(key).encode())) <= self.last_hash


def _md5(data: bytes) -> bytes:
    return hashlib.md5(
        data, usedforsecurity=False
    ).digest()  # Kinesis routes by MD5; nothing is secured by it


def restore(
    state: ShardState,
    shard: str,
    sequence: str | None,
    sub: int | None,
    snapshots: Snapshots,
    lineage: Callable[[str], Lineage],
    *,
    missing: str,
) -> str:
    """Load into `state` what belongs to the checkpoint given, and say where it came from.

    At a checkpoint: exactly its snapshot. At a shard's beginning: its parents' snapshots of SHARD_END, the keys
    in its hash range. Raises FatalError when a checkpoint has no snapshot and `missing` is not "fresh".
    """
    if sequence is None or sequence in _SENTINELS:
        return _inherit(state, lineage(shard), snapshots)
    name = token(Position(shard, sequence, sub or 0))
    snapshot = snapshots.load(shard, name)
    if snapshot is not None:
        _into(state, snapshot, f"{shard}/{name}")
        return name
    if missing == "fresh":
        return "fresh"
    raise FatalError(
        f"no state snapshot for checkpoint {name} of {shard}: going on would change scores and store repeats; "
        "restore state/ from its S3 versions, or set app.missing_state = fresh to begin with empty state"
    )


def _inherit(state: ShardState, lineage: Lineage, snapshots: Snapshots) -> str:
    found = []
    for parent in lineage.parents:
        snapshot = snapshots.load(parent, SHARD_END)
        if snapshot is not None:
            _into(state, snapshot, f"{parent}/{SHARD_END}", lineage.keeps)
            found.append(parent)
    return "+".join(found) if found else "fresh"


def _into(state: ShardState, snapshot: bytes, name: str, keep: Keep = lambda _key: True) -> None:
    try:
        state.restore(snapshot, keep)
    except FatalError as error:
        raise FatalError(f"{name}: {error}") from error


class S3Snapshots:
    """Snapshots as `state/<consumer>/<shard>/<name>`, as they are: a state compresses itself."""

    def __init__(self, s3: Any, bucket: str, consumer: str) -> None:
        self._s3, self._bucket, self._consumer = s3, bucket, consumer

    def _key(self, shard: str, name: str) -> str:
        return f"state/{self._consumer}/{shard}/{name}"

    def load(self, shard: str, name: str) -> bytes | None:
        """None where there is none. Whether it is a snapshot is seen when it is restored."""
        return objects.get(self._s3, self._bucket, self._key(shard, name))

    def save(self, shard: str, name: str, snapshot: bytes) -> None:
        """Overwrites: a second run makes the same state."""
        self._s3.put_object(Bucket=self._bucket, Key=self._key(shard, name), Body=snapshot)

    def forget(self, shard: str, name: str) -> None:
        """Deletes; an absent one is no error."""
        self._s3.delete_object(Bucket=self._bucket, Key=self._key(shard, name))


def lineage_of(kinesis: Any, stream: str) -> Callable[[str], Lineage]:
    """Look a shard's lineage up in the stream. Raises FatalError when the stream does not know the shard."""

    def look_up(shard: str) -> Lineage:
        for item in _shards(kinesis, stream):
            if item["ShardId"] == shard:
                parents = (item.get("ParentShardId"), item.get("AdjacentParentShardId"))
                hashes = item["HashKeyRange"]
                return Lineage(
                    tuple(parent for parent in parents if parent),
                    int(hashes["StartingHashKey"]),
                    int(hashes["EndingHashKey"]),
                )
        raise FatalError(f"stream {stream} has no shard {shard}")

    return look_up


def _shards(kinesis: Any, stream: str) -> Sequence[dict[str, Any]]:
    shards: list[dict[str, Any]] = []
    page = kinesis.list_shards(StreamName=stream)
    shards += page["Shards"]
    while token := page.get("NextToken"):
        page = kinesis.list_shards(NextToken=token)
        shards += page["Shards"]
    return shards
