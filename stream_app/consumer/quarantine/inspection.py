"""Find out which records end a process, by processing them in disposable forks first.

The first fork processes rows in pieces, the second the piece in which the first ended row by row, and the third
confirms the row. Forks report their progress, so three are enough for any number of rows, and the time limit applies
to a piece or a row, never to the sum of rows that are slow but pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from signal import Signals
from typing import NamedTuple

from stream_app.disposable_fork import ForkResult, Limit, Report, StackFrame
from stream_app.errors import FatalError
from stream_app.model.record import Code

PIECE = 64
SNAPSHOT, SINK, PROCESS = "snapshot", "sink", "process"
STARTING = -1
"""The number of rows done while a fork starts: if it ends then, no row is the cause."""
_TRIES = 3
_STAGES = frozenset({"decode", "conform", "verify", "calculate", "score"})
_PIPELINE = re.compile(r"/stream_app/pipeline/(\w+)\.py$")
_LIBRARY = re.compile(r"/(site-packages|lib/python[\d.]+)/|^<")

Trial = Callable[[Sequence[int], bool], ForkResult]
"""Process the rows up to each of these numbers in turn, in a fork; True: with a snapshot of the state after each."""


class Death(NamedTuple):
    """Why a row cannot be processed."""

    code: Code
    stage: str
    reason: str
    event: str | None
    schema: str | None


class Finding(NamedTuple):
    """Rows that a fork processed, up to each of `cuts`, and the death of the row after them if there was one."""

    cuts: list[int]
    death: Death | None = None

    @property
    def passed(self) -> int:
        """The number of rows that passed, which is also the index of the row that did not."""
        return self.cuts[-1] if self.cuts else 0


class Progress(NamedTuple):
    """What a fork reports before each step: rows done, the stage that begins, and the row's event type and schema."""

    done: int = STARTING
    stage: str = PROCESS
    event: str | None = None
    schema: str | None = None

    def tell(self, tell: Report) -> None:
        """Report it."""
        tell(f"{self.done}\t{self.stage}\t{self.event or ''}\t{self.schema or ''}")

    @classmethod
    def of(cls, told: Sequence[str]) -> Progress:
        """The last of a fork's reports."""
        if not told:
            return cls()
        done, stage, event, schema = told[-1].split("\t")
        return cls(int(done), stage, event or None, schema or None)


def inspect(rows: int, trial: Trial, limit: Limit) -> Finding:
    """The rows, counted from the first, that a process survives, and the first that it does not.

    A row is reported only if two forks in a row ended at it after all rows before it had passed. Raises FatalError
    if forks keep ending at different rows: then the machine is the cause, for example for lack of memory.
    """
    for _ in range(_TRIES):
        finding = _inspect(rows, trial, limit)
        if finding is not None:
            return finding
    raise FatalError(f"forks that process {rows} records end at different records: check the memory limit")


def _inspect(rows: int, trial: Trial, limit: Limit) -> Finding | None:
    cuts, snapshots = _pieces(rows), False
    first = trial(cuts, snapshots)
    if not first.finished and Progress.of(first.told).stage == SNAPSHOT:  # after all rows: find the piece
        snapshots = True
        first = trial(cuts, snapshots)
    if first.finished:
        return Finding(cuts)
    singly = _singly(cuts, Progress.of(first.told).done)
    second = trial(singly, snapshots)
    if second.finished:
        return Finding(singly)
    row = Progress.of(second.told).done
    if row == STARTING:
        return None
    third = trial([cut for cut in singly if cut <= row] + [row + 1], snapshots)
    if third.finished or Progress.of(third.told).done != row:
        return None
    return Finding([cut for cut in singly if cut <= row], _death(third, limit))


def _pieces(rows: int) -> list[int]:
    return [*range(PIECE, rows, PIECE), rows]


def _singly(cuts: Sequence[int], done: int) -> list[int]:
    """The cuts up to the piece after `done` rows, and then each row of that piece."""
    begin = max(done, 0)
    end = min(cut for cut in cuts if cut > begin)
    return [*(cut for cut in cuts if cut <= begin), *range(begin + 1, end + 1)]


def _death(ended: ForkResult, limit: Limit) -> Death:
    progress = Progress.of(ended.told)
    where = _where(ended.stack)
    code = Code.TIMED_OUT if ended.exceeded else Code.PROCESS_KILLED
    stage = _stage(ended.stack, progress.stage)
    return Death(code, stage, _how(ended, limit) + where, progress.event, progress.schema)


def _how(ended: ForkResult, limit: Limit) -> str:
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


def _where(stack: Sequence[StackFrame]) -> str:
    """The most recent call outside of libraries, without its folder."""
    frames = [frame for frame in stack if not _LIBRARY.search(frame.path)] or list(stack)
    return f", in {frames[0].function} ({Path(frames[0].path).name}:{frames[0].line})" if frames else ""


def _stage(stack: Sequence[StackFrame], known: str) -> str:
    for frame in stack:
        found = _PIPELINE.search(frame.path)
        if found and found[1] in _STAGES:
            return found[1]
    return known
