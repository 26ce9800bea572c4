"""Records are processed as if excluded records did not exist."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream_app.model.record import Code, Failure, Record
from stream_app.pipeline.exclusion import process_without
from stream_app.pipeline.flow import process
from stream_app.pipeline.state.shard_state import ShardState
from tests.samples import EVENTS, MAX_BYTES, registry, shards
from tests.support import entries_of, outcomes_of

REGISTRY = registry()


@given(shards(), st.sets(st.integers(0, 23)))
def test_outcomes_do_not_depend_on_excluded_records(records: list[Record], rows: set[int]) -> None:
    excluded = {
        row: Failure(row, "process", Code.TIMED_OUT, "too long", None) for row in rows if row < len(records)
    }
    state, calm = ShardState(EVENTS, 4), ShardState(EVENTS, 4)
    found = outcomes_of(process_without(records, REGISTRY, state, MAX_BYTES, excluded))
    kept = [row for row in range(len(records)) if row not in excluded]
    expected = outcomes_of(process([records[row] for row in kept], REGISTRY, calm, MAX_BYTES))
    assert [found[row] for row in kept] == [expected[at] for at in range(len(kept))]
    parked = ("failed", "process", Code.TIMED_OUT, "too long", None, None)
    assert {found[row] for row in excluded} <= {parked}
    assert found.keys() == set(range(len(records)))
    assert entries_of(state.snapshot()) == entries_of(calm.snapshot())
