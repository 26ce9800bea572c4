"""A damaged or incorrectly signed snapshot is refused with a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.consumer.forgetting import forget_after, problems
from stream_app.consumer.signed_snapshots import MAGIC, SignedSnapshots, read_keys
from stream_app.consumer.snapshots import SHARD_END, Lineage, restore
from stream_app.errors import ConfigError, FatalError
from stream_app.model.event import Event, Window
from stream_app.pipeline.flow import process
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.settings import Settings
from tests.samples import EVENTS, MAX_BYTES, registry
from tests.snapshots import records
from tests.support import WHOLE, Stores, entries_of

SHARD, OTHER, CHILD = "shardId-000000000000", "shardId-000000000001", "shardId-000000000002"
OLD, NEW = b"o" * 32, b"n" * 32


def some_state() -> ShardState:
    state = ShardState(EVENTS, 4)
    process(records(0, 60), registry(), state, MAX_BYTES)
    return state


SNAPSHOT = some_state().snapshot()


def restored(
    stores: Stores | SignedSnapshots, sequence: str | None = "5", missing: str = "fail"
) -> ShardState:
    state = ShardState(EVENTS, 4)
    restore(state, SHARD, sequence, 0, stores, lambda _: WHOLE, missing=missing)
    return state


# ---- Damage


@given(st.data())
def test_any_damage_is_detected_and_reported_with_a_remedy(data: st.DataObject) -> None:
    damaged = bytearray(SNAPSHOT)
    at = data.draw(st.integers(0, len(damaged) - 1))
    if data.draw(st.booleans()):
        damaged[at] ^= data.draw(st.integers(1, 255))
    else:
        del damaged[at:]
    stores = Stores(snapshots={(SHARD, "5"): bytes(damaged)})
    with pytest.raises(
        FatalError, match=r"/5: .*snapshot.*S3 object versions, or set app.missing_state = fresh"
    ):
        restored(stores)
    assert entries_of(restored(stores, missing="fresh").snapshot()) == {}


def test_the_parent_snapshot_that_is_not_refused_is_used() -> None:
    state = ShardState(EVENTS, 4)
    lineage = Lineage((SHARD, OTHER), 0, 2**128 - 1)
    snapshots = {(SHARD, SHARD_END): SNAPSHOT, (OTHER, SHARD_END): SNAPSHOT[:-1]}
    source = restore(state, CHILD, None, 0, Stores(snapshots=snapshots), lambda _: lineage, missing="fresh")
    assert source == SHARD
    assert entries_of(state.snapshot()) == entries_of(SNAPSHOT)


# ---- Signatures


def signed(stores: Stores, *keys: bytes, application: str = "app", accept: bool = False) -> SignedSnapshots:
    return SignedSnapshots(stores, keys, application, accept_unsigned=accept)


def test_a_signed_snapshot_is_read_only_with_its_key() -> None:
    stores = Stores()
    signed(stores, OLD).save(SHARD, "5", SNAPSHOT)
    assert OLD not in stores.snapshots[SHARD, "5"]
    assert signed(stores, OLD).load(SHARD, "5") == SNAPSHOT
    assert signed(stores, NEW, OLD).load(SHARD, "5") == SNAPSHOT
    assert signed(stores, accept=True).load(SHARD, "5") == SNAPSHOT
    assert signed(stores, OLD).load(SHARD, "6") is None
    with pytest.raises(FatalError, match="signed with an unknown key"):
        signed(stores, NEW, accept=True).load(SHARD, "5")
    with pytest.raises(FatalError, match="set STREAM_APP_STATE_KEY"):
        signed(stores).load(SHARD, "5")


@given(st.data())
def test_a_modified_signed_snapshot_is_refused(data: st.DataObject) -> None:
    stores = Stores()
    signed(stores, OLD).save(SHARD, "5", SNAPSHOT)
    changed = bytearray(stores.snapshots[SHARD, "5"])
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    stores.snapshots[SHARD, "5"] = bytes(changed)
    with pytest.raises(FatalError, match=r"signature|signed"):
        signed(stores, OLD).load(SHARD, "5")


def test_a_signed_snapshot_is_refused_at_another_location() -> None:
    stores = Stores()
    signed(stores, OLD).save(SHARD, "5", SNAPSHOT)
    data = stores.snapshots[SHARD, "5"]
    stores.snapshots |= {(SHARD, "6"): data, (OTHER, "5"): data}
    for shard, name, application in ((SHARD, "6", "app"), (OTHER, "5", "app"), (SHARD, "5", "app2")):
        with pytest.raises(FatalError, match="belongs to another checkpoint"):
            signed(stores, OLD, application=application).load(shard, name)


def test_an_unsigned_snapshot_is_read_where_allowed_and_the_next_is_signed() -> None:
    stores = Stores(snapshots={(SHARD, "5"): SNAPSHOT})
    with pytest.raises(FatalError, match=r"no signature.*app.unsigned_state = accept.*missing_state = fresh"):
        restored(signed(stores, OLD))
    state = restored(signed(stores, OLD, accept=True))
    signed(stores, OLD, accept=True).save(SHARD, "6", state.snapshot())
    assert entries_of(restored(signed(stores, OLD), "6").snapshot()) == entries_of(SNAPSHOT)
    assert stores.snapshots[SHARD, "6"].startswith(MAGIC)


def test_keys_are_read_from_the_environment_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(NEW + b"\n" + OLD + b"\n")
    assert read_keys("", str(file)) == [NEW, OLD]
    assert read_keys(OLD.decode(), str(file)) == [OLD]
    assert read_keys("", "") == []
    for text, named in ((b"short", "fewer than 32"), (b" \n", "is empty"), (b"\xff" * 40, "cannot be read")):
        file.write_bytes(text)
        with pytest.raises(ConfigError, match=named) as caught:
            read_keys("", str(file))
        assert "short" not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read: FileNotFoundError"):
        read_keys("", str(tmp_path / "absent"))


# ---- How soon devices may be forgotten


@pytest.mark.parametrize(
    ("size", "days", "told"), [(12, 3, ""), (12, 2, "3 days"), (48, 4, "5 days"), (48, 0, "")]
)
def test_a_device_is_kept_while_results_depend_on_its_history(size: int, days: int, told: str) -> None:
    found = problems(
        Settings("app", "s", forget_devices_after_days=days), [Event("e", "k", window=Window((), size))]
    )
    assert [told in problem.what for problem in found] == ([True] if told else [])


def test_the_default_is_longer_where_an_event_needs_more() -> None:
    short, long = Event("e", "k", window=Window((), 12)), Event("f", "k", window=Window((), 24 * 40))
    assert forget_after(Settings("app", "s"), [short]) == 30 * 86_400_000
    assert forget_after(Settings("app", "s"), [short, long]) == 81 * 86_400_000
    assert not problems(Settings("app", "s"), [long])
    assert forget_after(Settings("app", "s", forget_devices_after_days=0), [long]) == 0
