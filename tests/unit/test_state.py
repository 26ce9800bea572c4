"""State belongs to a checkpoint; child shards inherit the state in their hash key range."""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from stream_app.consumer.snapshots import SHARD_END, Lineage, S3Snapshots, lineage_of, restore
from stream_app.errors import FatalError
from stream_app.model.record import Record
from stream_app.pipeline.flow import process
from stream_app.pipeline.state.packing import pack, unpack
from stream_app.pipeline.state.shard_state import ShardState
from tests.samples import EVENTS, MAX_BYTES, registry, shards
from tests.support import WHOLE, Stores, entries_of, outcomes_of

REGISTRY = registry()
PARENT, OTHER, CHILD = "shardId-000000000000", "shardId-000000000001", "shardId-000000000002"


def new_state() -> ShardState:
    return ShardState(EVENTS, 4)


def after(records: list[Record]) -> ShardState:
    state = new_state()
    process(records, REGISTRY, state, MAX_BYTES)
    return state


def of(lineage: Lineage) -> Callable[[str], Lineage]:
    return lambda _shard: lineage


def hash_of(key: str) -> int:
    return int.from_bytes(hashlib.md5(key.encode()).digest())


@given(shards(), shards())
def test_a_restored_snapshot_continues_without_a_difference(
    before: list[Record], later: list[Record]
) -> None:
    state, restored = after(before), new_state()
    restored.restore(state.snapshot())
    assert restored.snapshot() == state.snapshot()
    first, second = (process(later, REGISTRY, each, MAX_BYTES) for each in (state, restored))
    assert outcomes_of(first) == outcomes_of(second)
    assert restored.snapshot() == state.snapshot()


# ---- Children


@given(shards(), st.integers(1, 2**128 - 1), st.data())
def test_two_children_inherit_their_parents_state(
    records: list[Record], cut: int, data: st.DataObject
) -> None:
    if data.draw(st.booleans(), label="cut at a device"):
        cut = hash_of(data.draw(st.sampled_from("abc")))
    parent = after(records)
    stores = Stores(snapshots={(PARENT, SHARD_END): parent.snapshot()})
    ranges = {"low": Lineage((PARENT,), 0, cut - 1), "high": Lineage((PARENT,), cut, 2**128 - 1)}
    parts = {}
    for name, lineage in ranges.items():
        child = new_state()
        source = restore(child, CHILD, "TRIM_HORIZON", 0, stores, of(lineage), missing="fail")
        assert source == PARENT
        parts[name] = entries_of(child.snapshot())
        assert all(lineage.first_hash <= hash_of(key) <= lineage.last_hash for _, _, key in parts[name])
    assert not parts["low"].keys() & parts["high"].keys()
    assert parts["low"] | parts["high"] == entries_of(parent.snapshot())


@given(shards(), shards())
def test_a_merged_shard_inherits_the_state_of_both_parents(first: list[Record], second: list[Record]) -> None:
    # Parents have different devices, because their ranges of hash keys are apart.
    mine = [item for item in first if item.partition_key == "a"]
    theirs = [item for item in second if item.partition_key in "bc"]
    low, high = after(mine), after(theirs)
    stores = Stores(snapshots={(PARENT, SHARD_END): low.snapshot(), (OTHER, SHARD_END): high.snapshot()})
    child = new_state()
    lineage = Lineage((PARENT, OTHER), 0, 2**128 - 1)
    assert restore(child, CHILD, None, None, stores, of(lineage), missing="fail") == f"{PARENT}+{OTHER}"
    assert entries_of(child.snapshot()) == entries_of(low.snapshot()) | entries_of(high.snapshot())


def test_a_hash_key_at_either_end_of_the_range_belongs_to_the_shard() -> None:
    at = hash_of("device")
    assert Lineage((), at, at).keeps("device")
    assert not Lineage((), at + 1, 2**128 - 1).keeps("device")
    assert not Lineage((), 0, at - 1).keeps("device")
    assert WHOLE.keeps("ünïcode")


# ---- Which snapshot


@pytest.mark.parametrize(("sub", "name"), [(0, "5"), (None, "5"), (2, "5.2")])
def test_a_checkpoint_restores_exactly_its_snapshot(sub: int | None, name: str) -> None:
    records = [Record(b'{"event":"reading","device":"a","time":0}', "a", "5", 0)]
    right, wrong = after(records), new_state()
    stores = Stores(snapshots={(CHILD, each): wrong.snapshot() for each in ("4", "5", "5.2", "6", SHARD_END)})
    stores.snapshots[CHILD, name] = right.snapshot()
    stores.snapshots[PARENT, name] = wrong.snapshot()
    state = new_state()
    assert restore(state, CHILD, "5", sub, stores, of(WHOLE), missing="fail") == name
    assert entries_of(state.snapshot()) == entries_of(right.snapshot())


@pytest.mark.parametrize("begin", ["TRIM_HORIZON", "LATEST", "AT_TIMESTAMP", None])
def test_a_shard_without_parent_state_starts_fresh(begin: str | None) -> None:
    for parents in ((), (PARENT, OTHER)):
        state = new_state()
        lineage = Lineage(parents, 0, 2**128 - 1)
        source = restore(state, CHILD, begin, None, Stores(), of(lineage), missing="fail")
        assert source == "fresh"
        assert entries_of(state.snapshot()) == {}


def test_a_checkpoint_without_its_snapshot_is_fatal_unless_fresh_is_allowed() -> None:
    state = new_state()
    with pytest.raises(FatalError, match=r"no state snapshot for checkpoint 5 of .*missing_state = fresh"):
        restore(state, CHILD, "5", 0, Stores(), of(WHOLE), missing="fail")
    assert restore(state, CHILD, "5", 0, Stores(), of(WHOLE), missing="fresh") == "fresh"
    assert entries_of(state.snapshot()) == {}


# ---- On S3, and in the stream


class _S3:
    """In-memory objects by key, with the calls that `S3Snapshots` uses."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes) -> None:
        self.objects[f"{Bucket}/{Key}"] = Body

    def delete_object(self, *, Bucket: str, Key: str) -> None:
        self.objects.pop(f"{Bucket}/{Key}", None)

    def get_object(self, *, Bucket: str, Key: str) -> Any:
        if f"{Bucket}/{Key}" not in self.objects:
            raise ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")
        return {"Body": io.BytesIO(self.objects[f"{Bucket}/{Key}"])}


@given(st.binary())
def test_snapshots_round_trip_through_s3(snapshot: bytes) -> None:
    s3: Any = _S3()
    snapshots = S3Snapshots(s3, "bucket", "app")
    assert snapshots.load(CHILD, "5") is None
    snapshots.save(CHILD, "5", snapshot)
    snapshots.save(CHILD, "5", snapshot)
    assert list(s3.objects) == [f"bucket/state/app/{CHILD}/5"]
    assert snapshots.load(CHILD, "5") == snapshot
    snapshots.forget(CHILD, "5")
    snapshots.forget(CHILD, "5")
    assert snapshots.load(CHILD, "5") is None


def test_an_object_that_is_not_a_snapshot_is_fatal_and_named() -> None:
    s3: Any = _S3()
    s3.objects[f"bucket/state/app/{CHILD}/5"] = b"something else"
    with pytest.raises(FatalError, match=f"{CHILD}/5: not a state snapshot"):
        restore(new_state(), CHILD, "5", None, S3Snapshots(s3, "bucket", "app"), of(WHOLE), missing="fail")


@pytest.mark.parametrize("squeezed", [pa.Codec("zstd", 1).compress, zlib.compress])
@given(shards())
def test_a_snapshot_of_an_older_version_is_read(
    squeezed: Callable[[Any], Any], records: list[Record]
) -> None:
    """They were MessagePack, compressed as a whole: by zstd, and once by zlib. When devices arrived was not known."""
    state, restored = after(records), new_state()
    content = unpack(state.snapshot()) | {"version": 2}
    for parts in content["events"].values():
        del parts["arrived"], parts["labels"]
    restored.restore(bytes(squeezed(pack(content))))
    found = {name: value for name, value in entries_of(state.snapshot()).items() if name[1] != "arrived"}
    assert found == {
        name: value for name, value in entries_of(restored.snapshot()).items() if name[1] != "arrived"
    }


class _Kinesis:
    """ListShards, a shard a page."""

    def __init__(self, shards: list[dict[str, Any]]) -> None:
        self._shards = shards

    def list_shards(self, *, StreamName: str = "", NextToken: str = "0") -> dict[str, Any]:
        at = int(NextToken)
        more = {"NextToken": str(at + 1)} if at + 1 < len(self._shards) else {}
        return {"Shards": self._shards[at : at + 1], **more}


def test_a_shards_lineage_is_found_on_any_page() -> None:
    hashes = {"StartingHashKey": "5", "EndingHashKey": str(2**128 - 1)}
    merged = {"ParentShardId": PARENT, "AdjacentParentShardId": OTHER}
    kinesis: Any = _Kinesis(
        [
            {"ShardId": PARENT, "HashKeyRange": hashes},
            {"ShardId": OTHER, "HashKeyRange": hashes, "ParentShardId": "gone"},
            {"ShardId": CHILD, "HashKeyRange": hashes, **merged},
        ]
    )
    look_up = lineage_of(kinesis, "devices")
    assert look_up(PARENT) == Lineage((), 5, 2**128 - 1)
    assert look_up(OTHER).parents == ("gone",)
    assert look_up(CHILD).parents == (PARENT, OTHER)
    with pytest.raises(FatalError, match="stream devices has no shard x"):
        look_up("x")
