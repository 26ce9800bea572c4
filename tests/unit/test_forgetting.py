"""A device that is silent for longer than the gap is forgotten, regardless of batches, restarts and compaction.

The expected results come from a state that never forgets, in which a device has a new name after each silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.model.record import Record
from stream_app.pipeline.flow import process
from stream_app.pipeline.state import event_state as state_module
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.testing import record
from tests import samples, snapshots
from tests.support import outcomes_of

GAP = 1_000
REGISTRY = snapshots.registry()
# Event types whose snapshots are equal if their states are. A detector that cannot forget renames a device that was
# forgotten, and a pickle depends on object identity.
CANONICAL = {name: snapshots.EVENTS[name] for name in ("nearest", "deviation", "trees")}


class Sent(NamedTuple):
    """One record: its event type, fields and arrival time."""

    event: str
    fields: dict[str, Any]
    arrived: int


@st.composite
def sent(draw: st.DrawFn, events: Sequence[str] = tuple(snapshots.EVENTS)) -> list[Sent]:
    """Records with silences of about the length of the gap, and arrival times that may go backwards."""
    steps = st.sampled_from((0, 1, 300, GAP - 1, GAP, GAP + 1, 3 * GAP, -700))
    chosen = draw(st.lists(st.sampled_from(events), min_size=1, max_size=2, unique=True))
    each = st.tuples(st.sampled_from(chosen), samples.FIELDS, steps)
    found, arrived = [], samples.START
    for event, fields, step in draw(st.lists(each, min_size=1, max_size=30)):
        arrived += step
        found.append(Sent(event, fields, arrived))
    return found


def as_records(rows: Sequence[Sent], names: Sequence[str] | None = None) -> list[Record]:
    """Return the records, with other device names if `names` are given."""
    made = []
    for number, row in enumerate(rows):
        fields = row.fields if names is None else row.fields | {"device": names[number]}
        made.append(record(samples.as_json(row.event, fields), number + 1, key="k", arrived=row.arrived))
    return made


def generations(rows: Sequence[Sent]) -> list[str]:
    """Return a device name for each row that changes after each silence."""
    latest, last, count = 0, dict[tuple[str, str], int](), dict[tuple[str, str], int]()
    names = []
    for row in rows:
        device = row.event, row.fields["device"]
        latest = max(latest, row.arrived)
        if latest - last.get(device, latest) > GAP:
            count[device] = count.get(device, 0) + 1
        last[device] = latest
        names.append(f"{row.fields['device']}#{count.get(device, 0)}")
    return names


def without_device_names(found: dict[int, Any]) -> dict[int, Any]:
    """Remove the generation from the device names of the outcomes."""
    for fate in found.values():
        if fate[0] == "passed":
            fate[2]["device"] = fate[2]["device"][1].partition("#")[0]
    return found


def run(state: ShardState, records: Sequence[Record], start: int = 0) -> dict[int, Any]:
    return without_device_names(outcomes_of(process(records, REGISTRY, state, samples.MAX_BYTES), start))


@given(sent(), st.data(), st.sampled_from((0, 4_096)))
@settings(deadline=None)
def test_a_device_is_forgotten_after_a_silence_in_every_split(
    rows: list[Sent], data: st.DataObject, few: int
) -> None:
    expected = run(snapshots.new_state(), as_records(rows, generations(rows)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            state_module, "MIN_FORGOTTEN", few
        )  # 0: compacts as soon as half of the devices are forgotten
        state, start = ShardState(snapshots.EVENTS, snapshots.SEEN_IDS, GAP), 0
        found: dict[int, Any] = {}
        for part in data.draw(samples.splits(as_records(rows))):
            found |= run(state, part, start)
            start += len(part)
            if data.draw(st.booleans(), label="restart"):
                snapshot, state = state.snapshot(), ShardState(snapshots.EVENTS, snapshots.SEEN_IDS, GAP)
                state.restore(snapshot)
    assert found == expected


@given(sent(tuple(CANONICAL)), st.data())
@settings(deadline=None)
def test_a_snapshot_does_not_depend_on_when_memory_was_compacted(
    rows: list[Sent], data: st.DataObject
) -> None:
    whole = ShardState(CANONICAL, snapshots.SEEN_IDS, GAP)
    run(whole, as_records(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state_module, "MIN_FORGOTTEN", 0)
        state = ShardState(CANONICAL, snapshots.SEEN_IDS, GAP)
        for part in data.draw(samples.splits(as_records(rows))):
            run(state, part)
            if data.draw(st.booleans(), label="restart"):
                snapshot, state = state.snapshot(), ShardState(CANONICAL, snapshots.SEEN_IDS, GAP)
                state.restore(snapshot)
    assert state.snapshot() == whole.snapshot()


@given(sent(), st.integers(0, 30), st.sets(st.sampled_from(samples.DEVICES)))
@settings(deadline=None)
def test_child_shards_forget_devices_like_the_parent_shard(
    rows: list[Sent], cut: int, mine: set[str]
) -> None:
    # A child's latest arrival time is that of its own records only, so arrivals must not go backwards here.
    latest = np.maximum.accumulate([row.arrived for row in rows]).tolist()
    ascending = [row._replace(arrived=arrived) for row, arrived in zip(rows, latest, strict=True)]
    expected = run(snapshots.new_state(), as_records(ascending, generations(rows)))
    parent, records = ShardState(snapshots.EVENTS, snapshots.SEEN_IDS, GAP), as_records(rows)
    run(parent, records[:cut])
    for keeps in (mine.__contains__, lambda device: device not in mine):
        child = ShardState(snapshots.EVENTS, snapshots.SEEN_IDS, GAP)
        child.restore(parent.snapshot(), keeps)
        own = [at for at in range(cut, len(rows)) if keeps(rows[at].fields["device"])]
        moved = [record(records[at].data, at + 1, key="k", arrived=latest[at]) for at in own]
        found = run(child, moved)
        assert [found[at] for at in range(len(own))] == [expected[at] for at in own]


def test_devices_of_a_version_2_snapshot_are_not_forgotten_at_once() -> None:
    state = ShardState(snapshots.EVENTS, snapshots.SEEN_IDS, GAP)
    state.restore(snapshots.VERSION_2.read_bytes())
    begin, known = samples.START + 99 * GAP, "device 1"

    def pause(device: str, event_id: str, arrived: int) -> float:
        """Return the seconds since the device's previous record."""
        fields = {"id": event_id, "device": device, "time": begin + 9_999 * samples.HOUR, "value": 1.0}
        fate = run(state, as_records([Sent("step", fields, arrived)]))[0]
        return float(np.frombuffer(fate[2]["pause"][1])[0])

    assert pause(known, "new", begin) > 0
    assert pause(known, "newer", begin + GAP) == 0
    assert state.forgotten == 0
    assert np.isnan(pause("another device", "new", begin + 2 * GAP + 1))
    assert np.isnan(pause(known, "newest", begin))
    assert state.forgotten == 60  # all devices of the snapshot


# ---- Memory


def test_the_memory_of_devices_that_send_only_once_is_released() -> None:
    state = ShardState({"step": samples.STEP}, 256, GAP)
    held = []
    for number in range(60):
        rows = [
            Sent(
                "step",
                {"id": "1", "device": f"{number}-{at}", "time": samples.START, "value": 1.0},
                number * GAP,
            )
            for at in range(1_000)
        ]
        run(state, as_records(rows))
        held.append(state.devices)
    assert max(held) < 10_000
    assert state.forgotten > 50_000
    assert state.forgotten + len(state["step"].devices.live_slots()) == 60_000
