"""SplitShard, MergeShards and UpdateShardCount as AWS documents them.

The parent shards are closed but keep their records; the child shards start empty. moto copies the parents' records
into the children (on a split, with partition key and data swapped), merges shards that are closed or not adjacent,
and halves 128-bit ranges in floating point.
"""

from __future__ import annotations

from moto.kinesis.exceptions import StreamCannotBeUpdatedError
from moto.kinesis.models import Shard, Stream

from stream_app.local.moto_patches.kinesis import errors
from stream_app.local.moto_patches.kinesis.streams import state_of
from stream_app.local.moto_patches.patch import replace


def split_shard(self: Stream, shard_to_split: str, new_starting_hash_key: str) -> None:
    """Close a shard and open two shards in its range, the second starting at `new_starting_hash_key`."""
    middle = int(new_starting_hash_key)
    state = state_of(self)
    with state.lock:
        parent = self.shards[shard_to_split]
        _refuse_closed(self, parent)
        if not parent.starting_hash < middle < parent.ending_hash:
            raise errors.invalid_argument(
                f"NewStartingHashKey {middle} used in SplitShard() on shard {shard_to_split} in stream "
                f"{self.stream_name} under account {self.account_id} is not both greater than one plus the shard's "
                f"StartingHashKey {parent.starting_hash} and less than the shard's EndingHashKey "
                f"{parent.ending_hash - 1}."
            )
        parent.is_open = False
        _open(self, parent.starting_hash, middle - 1, parent)
        _open(self, middle, parent.ending_hash, parent)
        state.sync_shards(self)


def merge_shards(self: Stream, shard_to_merge: str, adjacent_shard_to_merge: str) -> None:
    """Close two adjacent shards and open one shard in their combined range."""
    state = state_of(self)
    with state.lock:
        parent, adjacent = self.shards[shard_to_merge], self.shards[adjacent_shard_to_merge]
        _refuse_closed(self, parent)
        _refuse_closed(self, adjacent)
        low, high = sorted((parent, adjacent), key=lambda shard: shard.starting_hash)
        if low.ending_hash + 1 != high.starting_hash:
            raise errors.invalid_argument(
                f"Shards {shard_to_merge} and {adjacent_shard_to_merge} in stream {self.stream_name} under account "
                f"{self.account_id} are not an adjacent pair of shards eligible for merging"
            )
        parent.is_open = adjacent.is_open = False
        _open(self, low.starting_hash, high.ending_hash, parent, adjacent)
        state.sync_shards(self)


def update_shard_count(self: Stream, target_shard_count: int) -> None:
    """Split all open shards in half until there are enough, then merge adjacent shards down to the target."""
    if self.stream_mode.get("StreamMode", "") == "ON_DEMAND":
        raise StreamCannotBeUpdatedError(stream_name=self.stream_name, account_id=self.account_id)
    if target_shard_count < 1:
        raise errors.validation("targetShardCount", "have value greater than or equal to 1")
    with state_of(self).lock:
        while (count := len(live := _open_shards(self))) != target_shard_count:
            if count < target_shard_count:
                for shard in live:
                    split_shard(self, shard.shard_id, str((shard.starting_hash + shard.ending_hash + 1) // 2))
            else:
                pairs = zip(live[::2], live[1::2], strict=False)
                for _, (low, high) in zip(range(count - target_shard_count), pairs, strict=False):
                    merge_shards(self, low.shard_id, high.shard_id)
        self.shard_count = target_shard_count


def _open_shards(stream: Stream) -> list[Shard]:
    return sorted((s for s in stream.shards.values() if s.is_open), key=lambda shard: shard.starting_hash)


def _refuse_closed(stream: Stream, shard: Shard) -> None:
    if not shard.is_open:
        raise errors.invalid_argument(
            f"Shard {shard.shard_id} in stream {stream.stream_name} under account {stream.account_id} has already "
            "been merged or split, and thus is not eligible for merging or splitting."
        )


def _open(stream: Stream, start: int, end: int, parent: Shard, adjacent: Shard | None = None) -> None:
    index = 1 + max(shard._shard_id for shard in stream.shards.values())
    other = adjacent.shard_id if adjacent is not None else None
    child = Shard(index, start, end, parent=parent.shard_id, adjacent_parent=other)
    stream.shards[child.shard_id] = child
    stream.shard_count = len(_open_shards(stream))


def apply() -> None:
    """Install the patch."""
    replace(Stream, "split_shard", split_shard)
    replace(Stream, "merge_shards", merge_shards)
    replace(Stream, "update_shard_count", update_shard_count)
