"""Trials of record ranges: the failing records, and the runs of equal outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from stream_app.model.record import Failure, Position, Record
from stream_app.pipeline.flow import process
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.recovery.hydrate.trial import Outcome, Run, joined, pass_all, pipeline_trials, runs
from tests import samples

REGISTRY = samples.registry()
MARKED = st.lists(st.sampled_from(list(Outcome)), max_size=30).map(
    lambda outcomes: [(Position("s", str(at + 7), at % 2), outcome) for at, outcome in enumerate(outcomes)]
)


@given(MARKED, st.lists(st.integers(0, 30)))
def test_joined_runs_of_parts_equal_the_runs_of_the_whole(
    marked: list[tuple[Position, Outcome]], cuts: list[int]
) -> None:
    bounds = [0, *sorted(min(cut, len(marked)) for cut in cuts), len(marked)]
    pieces = [marked[begin:end] for begin, end in pairwise(bounds)]
    whole = joined([run for piece in pieces for run in runs(piece)])
    assert whole == runs(marked)
    assert sum(run.count for run in whole) == len(marked)
    assert all(one.outcome != other.outcome for one, other in pairwise(whole))


def test_a_run_has_its_first_and_last_sequence_number_and_its_count() -> None:
    marked = [(Position("s", str(at)), Outcome.PASSED if at else Outcome.FAILED) for at in range(4)]
    assert runs(marked) == [Run(Outcome.FAILED, "0", "0", 1), Run(Outcome.PASSED, "1", "3", 3)]


@given(samples.shards(), st.data())
def test_the_failing_records_are_those_of_the_pipeline_for_any_paging(
    records: Sequence[Record], data: st.DataObject
) -> None:
    trial_factory = pipeline_trials(REGISTRY, seen_ids=4, max_bytes=samples.MAX_BYTES)
    state = ShardState({name: codec.event for name, codec in REGISTRY.codecs.items()}, 4)
    expected = {one.row: one for one in process(records, REGISTRY, state, samples.MAX_BYTES).failed}
    trial, start = trial_factory(), 0
    failing: dict[int, Failure] = {}
    for part in data.draw(samples.splits(records)):
        failing |= {row + start: one.moved(row + start - one.row) for row, one in trial(part).items()}
        start += len(part)
    assert failing == expected
    assert trial_factory()(records) == expected, "the next range starts with an empty state"


def test_pass_all_reports_no_failing_record() -> None:
    assert pass_all()([]) == {}
