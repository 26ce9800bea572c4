"""Finding the record that ends a process, with simulated forks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.consumer.quarantine.inspection import PIECE, STARTING, Progress, inspect
from stream_app.errors import FatalError
from stream_app.processes.disposable_fork import ForkResult, Limit, StackFrame

LIMIT = Limit(5.0, 20.0)


class Forks:
    """Simulated trials that die at the rows `fatal`; `kills(trial, row)` simulates an external SIGKILL."""

    def __init__(
        self, fatal: set[int], kills: Callable[[int, int], bool] = lambda _trial, _row: False
    ) -> None:
        self.fatal, self.kills = fatal, kills
        self.cuts: list[list[int]] = []

    def __call__(self, cuts: Sequence[int], _snapshots: bool) -> ForkResult:
        self.cuts.append(list(cuts))
        reports = [_report(Progress(0))]
        for start, stop in zip([0, *cuts], cuts, strict=False):
            rows = range(start, stop)
            if any(row in self.fatal or self.kills(len(self.cuts), row) for row in rows):
                return ForkResult(reports, code=-9)
            reports.append(_report(Progress(stop)))
        return ForkResult(reports, finished=True, code=0)


def _report(progress: Progress) -> str:
    reports: list[str] = []
    progress.send(reports.append)
    return reports[0]


@given(st.integers(1, 400), st.sets(st.integers(0, 399), max_size=3))
def test_the_first_fatal_row_is_found_with_at_most_three_forks(rows: int, fatal: set[int]) -> None:
    forks = Forks(fatal)
    found = inspect(rows, forks, LIMIT)
    first = min((row for row in fatal if row < rows), default=None)
    if first is None:
        assert (found.passed, found.termination, len(forks.cuts)) == (rows, None, 1)
    else:
        assert found.termination is not None
        assert (found.passed, found.termination.reason) == (first, "the process was killed by SIGKILL")
        assert len(forks.cuts) == 3
    assert all(stop - start <= PIECE for start, stop in zip([0, *found.cuts], found.cuts, strict=False))


@given(st.integers(1, 300), st.integers(1, 2), st.integers(0, 299))
def test_one_or_two_external_kills_are_not_attributed_to_a_record(rows: int, trials: int, at: int) -> None:
    forks = Forks(set(), lambda trial, row: trial <= trials and row == at)
    found = inspect(rows, forks, LIMIT)
    assert found.termination is None
    assert 0 < found.passed <= rows


def test_forks_that_end_at_different_rows_are_a_fatal_error() -> None:
    with pytest.raises(FatalError, match="memory limit"):
        inspect(100, Forks(set(), lambda trial, row: row == 7 * trial % 60), LIMIT)


def test_a_fork_that_ends_before_the_first_record_is_a_fatal_error() -> None:
    def no_reports(_cuts: Sequence[int], _snapshots: bool) -> ForkResult:
        return ForkResult([], code=-9)

    with pytest.raises(FatalError):
        inspect(10, no_reports, LIMIT)
    assert Progress.of([]).done == STARTING


@pytest.mark.parametrize(
    ("ended", "reason"),
    [
        (ForkResult([], code=0), "the process ended with exit code 0"),
        (ForkResult([], code=None), "the process ended"),
        (ForkResult([], code=-64), "the process was killed by SIGRTMAX"),
        (ForkResult([], code=-63), "the process was killed by signal 63"),
        (
            ForkResult([], code=1, error="OverflowError: too far"),
            "processing ended the process: OverflowError: too far",
        ),
        (ForkResult([], exceeded="busy", code=-6), "processing took more than 5 s of processor time"),
        (ForkResult([], exceeded="waiting", code=-6), "processing made no progress within 20 s"),
        (
            ForkResult(
                [],
                code=-11,
                stack=[StackFrame("/x/lib/python3.11/re.py", 3, "f"), StackFrame("/y/mine.py", 7, "g")],
            ),
            "the process was killed by SIGSEGV, in g (mine.py:7)",
        ),
    ],
)
def test_the_reason_describes_how_the_fork_ended(ended: ForkResult, reason: str) -> None:
    reports = [_report(Progress(0, "process", "reading", "5c"))]
    found = inspect(1, lambda _cuts, _snapshots: ended._replace(reports=reports), LIMIT)
    assert found.termination is not None
    assert found.termination.reason == reason
    assert (found.termination.stage, found.termination.event, found.termination.schema) == (
        "process",
        "reading",
        "5c",
    )
    assert found.termination.code == ("TIMED_OUT" if ended.exceeded else "PROCESS_KILLED")


def test_the_stage_is_taken_from_the_stack_if_available() -> None:
    frames = [
        StackFrame("/a/events/mine.py", 7, "rate"),
        StackFrame("/a/stream_app/pipeline/calculate.py", 3, "calculate"),
    ]
    ended = ForkResult([_report(Progress(0))], code=-11, stack=frames)
    found = inspect(1, lambda _cuts, _snapshots: ended, LIMIT)
    assert found.termination is not None
    assert found.termination.stage == "calculate"
