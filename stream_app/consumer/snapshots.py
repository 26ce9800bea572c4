"""Snapshots of a shard's state, stored under the sequence number of their checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from stream_app.aws import objects
from stream_app.errors import FatalError
from stream_app.model.record import Position
from stream_app.model.segment import token
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.pipeline.state.snapshot import KeyFilter

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_kinesis.type_defs import ShardTypeDef
    from mypy_boto3_s3 import S3Client

SHARD_END = "SHARD_END"
_SENTINELS = frozenset({"TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"})


class Snapshots(Protocol):
    """Storage of snapshots by shard and checkpoint name."""

    def load(self, shard: str, name: str) -> bytes | None:
        """Return the snapshot of that name, None if there is none."""
        ...

    def save(self, shard: str, name: str, snapshot: bytes) -> None:
        """Store a snapshot; idempotent."""
        ...

    def forget(self, shard: str, name: str) -> None:
        """Delete a snapshot that no checkpoint needs."""
        ...


class Lineage(NamedTuple):
    """The parents of a shard and its range of hash keys (both ends inclusive)."""

    parents: tuple[str, ...]
    first_hash: int
    last_hash: int

    def keeps(self, key: object) -> bool:
        """Whether records of a device belong to the shard: its key as text is the partition key."""
        return self.first_hash <= int.from_bytes(_md5(str(key).encode())) <= self.last_hash


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()  # Kinesis maps partition keys to shards by MD5


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
    """Load the state that belongs to a checkpoint, and return its source.

    The source is the checkpoint's name, the parent shards joined by `+`, or "fresh". A checkpoint has exactly its own
    snapshot. At the beginning of a shard, the SHARD_END snapshots of its parents are loaded, limited to the keys in
    its hash range. Raises FatalError if a checkpoint has no snapshot, or a snapshot is rejected, unless `missing` is
    "fresh".
    """
    if sequence is None or sequence in _SENTINELS:
        return _inherit(state, lineage(shard), snapshots, missing)
    name = token(Position(shard, sequence, sub or 0))
    restored = _restore_one(state, snapshots, shard, name, missing)
    if restored is _Restored.ABSENT and missing != "fresh":
        raise FatalError(
            f"no state snapshot for checkpoint {name} of {shard}: "
            f"continuing would change scores and store duplicates; {_REMEDY}"
        )
    return name if restored is _Restored.LOADED else "fresh"


_REMEDY = (
    "restore state/ from its S3 object versions, or set app.missing_state = fresh to start with empty state"
)


class _Restored(Enum):
    """The result of restoring one snapshot."""

    LOADED = "loaded"
    ABSENT = "absent"
    REJECTED = "rejected"


def _inherit(state: ShardState, lineage: Lineage, snapshots: Snapshots, missing: str) -> str:
    found: list[str] = []
    for parent in lineage.parents:
        restored = _restore_one(state, snapshots, parent, SHARD_END, missing, lineage.keeps)
        if restored is _Restored.LOADED:
            found.append(parent)
        elif restored is _Restored.REJECTED:  # the state was cleared, so the other parents are loaded again
            for other in found:
                _restore_one(state, snapshots, other, SHARD_END, missing, lineage.keeps)
    return "+".join(found) if found else "fresh"


def _restore_one(
    state: ShardState,
    snapshots: Snapshots,
    shard: str,
    name: str,
    missing: str,
    keep: KeyFilter = lambda _key: True,
) -> _Restored:
    try:
        snapshot = snapshots.load(shard, name)
        if snapshot is None:
            return _Restored.ABSENT
        state.restore(snapshot, keep)
    except FatalError as error:
        if missing != "fresh":
            raise FatalError(f"{shard}/{name}: {error}; {_REMEDY}") from error
        state.clear()
        return _Restored.REJECTED
    return _Restored.LOADED


class S3Snapshots:
    """Stores snapshots as S3 objects `state/<consumer>/<shard>/<name>`; they are already compressed."""

    def __init__(self, s3: S3Client, bucket: str, consumer: str) -> None:
        self._s3, self._bucket, self._consumer = s3, bucket, consumer

    def _key(self, shard: str, name: str) -> str:
        return f"state/{self._consumer}/{shard}/{name}"

    def load(self, shard: str, name: str) -> bytes | None:
        """Return the object's bytes, None if there is none; they are checked when they are restored."""
        return objects.get(self._s3, self._bucket, self._key(shard, name))

    def save(self, shard: str, name: str, snapshot: bytes) -> None:
        """Overwrite the object: a second run produces the same state."""
        self._s3.put_object(Bucket=self._bucket, Key=self._key(shard, name), Body=snapshot)

    def forget(self, shard: str, name: str) -> None:
        """Delete the object; a missing one is no error."""
        self._s3.delete_object(Bucket=self._bucket, Key=self._key(shard, name))


def lineage_of(kinesis: KinesisClient, stream: str) -> Callable[[str], Lineage]:
    """Return a function that looks up a shard's lineage. It raises FatalError for an unknown shard."""

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


def _shards(kinesis: KinesisClient, stream: str) -> Sequence[ShardTypeDef]:
    shards: list[ShardTypeDef] = []
    page = kinesis.list_shards(StreamName=stream)
    shards += page["Shards"]
    while token := page.get("NextToken"):
        page = kinesis.list_shards(NextToken=token)
        shards += page["Shards"]
    return shards
