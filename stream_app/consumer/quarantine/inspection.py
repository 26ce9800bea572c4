"""Finds the records that end a process by processing them in disposable forks first.

The first fork processes the rows in pieces. The second one processes the piece in which the first ended row by row,
and the third one confirms the row. Forks report their progress, so three are enough for any number of rows, and the
time limit applies to a piece or a row, not to the sum of many slow rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from signal import Signals
from typing import NamedTuple

from stream_app.errors import FatalError
from stream_app.model.record import Code
from stream_app.processes.disposable_fork import ForkResult, Limit, Report, StackFrame

PIECE = 64
SNAPSHOT, SINK, PROCESS = "snapshot", "sink", "process"
STARTING = -1
"""The progress of a fork that is starting: if it ends then, no row is the cause."""
_MAX_ATTEMPTS = 3
_STAGES = frozenset({"decode", "conform", "verify", "calculate", "score"})
_PIPELINE = re.compile(r"/stream_app/pipeline/(\w+)\.py$")
_LIBRARY = re.compile(r"/(site-packages|lib/python[\d.]+)/|^<")

Trial = Callable[[Sequence[int], bool], ForkResult]
"""Processes rows in a fork, up to each of these counts; with True, it makes a snapshot of the state after each."""


class Termination(NamedTuple):
    """Why a row cannot be processed."""

    code: Code
    stage: str
    reason: str
    event: str | None
    schema: str | None


class Finding(NamedTuple):
    """Rows that a fork processed, up to each of `cuts`, and why the row after them ends a process, if it does."""

    cuts: list[int]
    termination: Termination | None = None

    @property
    def passed(self) -> int:
        """The number of rows that passed, which is also the index of the row that did not."""
        return self.cuts[-1] if self.cuts else 0


class Progress(NamedTuple):
    """A fork's report before each step: rows done, the stage that starts, and the row's event type and schema."""

    done: int = STARTING
    stage: str = PROCESS
    event: str | None = None
    schema: str | None = None

    def send(self, report: Report) -> None:
        """Send the report to the parent process."""
        report(f"{self.done}\t{self.stage}\t{self.event or ''}\t{self.schema or ''}")

    @classmethod
    def of(cls, reports: Sequence[str]) -> Progress:
        """Return the last of a fork's reports."""
        if not reports:
            return cls()
        done, stage, event, schema = reports[-1].split("\t")
        return cls(int(done), stage, event or None, schema or None)


def inspect(rows: int, trial: Trial, limit: Limit) -> Finding:
    """Return the leading rows that a process can handle, and the first row that ends it, if there is one.

    A row is reported only if two consecutive forks ended at it after all rows before it had passed. Raises FatalError
    if forks end at different rows again and again: then the cause is the machine, for example lack of memory.
    """
    for _ in range(_MAX_ATTEMPTS):
        finding = _inspect(rows, trial, limit)
        if finding is not None:
            return finding
    raise FatalError(f"forks that process {rows} records end at different records: check the memory limit")


def _inspect(rows: int, trial: Trial, limit: Limit) -> Finding | None:
    cuts, snapshots = _pieces(rows), False
    first = trial(cuts, snapshots)
    if not first.finished and Progress.of(first.reports).stage == SNAPSHOT:
        snapshots = True  # the snapshot after all rows failed: find the piece
        first = trial(cuts, snapshots)
    if first.finished:
        return Finding(cuts)
    singly = _singly(cuts, Progress.of(first.reports).done)
    second = trial(singly, snapshots)
    if second.finished:
        return Finding(singly)
    row = Progress.of(second.reports).done
    if row == STARTING:
        return None
    third = trial([cut for cut in singly if cut <= row] + [row + 1], snapshots)
    if third.finished or Progress.of(third.reports).done != row:
        return None
    return Finding([cut for cut in singly if cut <= row], _termination(third, limit))


def _pieces(rows: int) -> list[int]:
    return [*range(PIECE, rows, PIECE), rows]


def _singly(cuts: Sequence[int], done: int) -> list[int]:
    """Return the cuts up to the piece after `done` rows, followed by each row of that piece."""
    begin = max(done, 0)
    end = min(cut for cut in cuts if cut > begin)
    return [*(cut for cut in cuts if cut <= begin), *range(begin + 1, end + 1)]


def _termination(ended: ForkResult, limit: Limit) -> Termination:
    progress = Progress.of(ended.reports)
    location = _location(ended.stack)
    code = Code.TIMED_OUT if ended.exceeded else Code.PROCESS_KILLED
    stage = _stage(ended.stack, progress.stage)
    return Termination(code, stage, _reason(ended, limit) + location, progress.event, progress.schema)


def _reason(ended: ForkResult, limit: Limit) -> str:
    if ended.exceeded == "busy":
        return f"processing took more than {limit.busy:.3g} s of processor time"
    if ended.exceeded:
        return f"processing made no progress within {limit.waiting:.3g} s"
    if ended.error:
        return f"processing ended the process: {ended.error}"
    if ended.code is None:
        return "the process ended"
    if ended.code < 0:
        return f"the process was killed by {_signal(-ended.code)}"
    return f"the process ended with exit code {ended.code}"


def _signal(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"


def _location(stack: Sequence[StackFrame]) -> str:
    """Return the most recent call outside of libraries, with the file name but not its folder."""
    frames = [frame for frame in stack if not _LIBRARY.search(frame.path)] or list(stack)
    return f", in {frames[0].function} ({Path(frames[0].path).name}:{frames[0].line})" if frames else ""


def _stage(stack: Sequence[StackFrame], known: str) -> str:
    for frame in stack:
        found = _PIPELINE.search(frame.path)
        if found and found[1] in _STAGES:
            return found[1]
    return known
