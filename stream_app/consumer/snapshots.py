"""Snapshots of a shard's state, kept under the sequence number of the checkpoint that they belong to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, NamedTuple, Protocol

from stream_app.aws import objects
from stream_app.errors import FatalError
from stream_app.model.record import Position
from stream_app.model.segment import token
from stream_app.pipeline.state.previous_values import KeyFilter
from stream_app.pipeline.state.shard_state import ShardState

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
    in its hash range. Raises FatalError when a checkpoint has no snapshot, or when a snapshot is refused, and
    `missing` is not "fresh".
    """
    if sequence is None or sequence in _SENTINELS:
        return _inherit(state, lineage(shard), snapshots, missing)
    name = token(Position(shard, sequence, sub or 0))
    taken = _take(state, snapshots, shard, name, missing)
    if taken is Taken.ABSENT and missing != "fresh":
        raise FatalError(
            f"no state snapshot for checkpoint {name} of {shard}: going on would change scores and store repeats; "
            f"{_WHAT_TO_DO}"
        )
    return name if taken is Taken.TAKEN else "fresh"


_WHAT_TO_DO = (
    "restore state/ from its S3 versions, or set app.missing_state = fresh to begin with empty state"
)


class Taken(Enum):
    """What became of a snapshot that was looked for."""

    TAKEN = "taken"
    ABSENT = "absent"
    REFUSED = "refused"


def _inherit(state: ShardState, lineage: Lineage, snapshots: Snapshots, missing: str) -> str:
    found: list[str] = []
    for parent in lineage.parents:
        taken = _take(state, snapshots, parent, SHARD_END, missing, lineage.keeps)
        if taken is Taken.TAKEN:
            found.append(parent)
        elif taken is Taken.REFUSED:  # and the state was cleared
            for other in found:
                _take(state, snapshots, other, SHARD_END, missing, lineage.keeps)
    return "+".join(found) if found else "fresh"


def _take(
    state: ShardState,
    snapshots: Snapshots,
    shard: str,
    name: str,
    missing: str,
    keep: KeyFilter = lambda _key: True,
) -> Taken:
    try:
        snapshot = snapshots.load(shard, name)
        if snapshot is None:
            return Taken.ABSENT
        state.restore(snapshot, keep)
    except FatalError as error:
        if missing != "fresh":
            raise FatalError(f"{shard}/{name}: {error}; {_WHAT_TO_DO}") from error
        state.clear()
        return Taken.REFUSED
    return Taken.TAKEN


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
