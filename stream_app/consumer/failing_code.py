"""Finds event types of which every record fails at one line of a user's code: a programming error, not bad data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from stream_app.errors import ConfigError, Problem
from stream_app.model.record import Code, Failure, IntVector
from stream_app.pipeline.flow import Processed
from stream_app.source_lines import line_in

NOTICEABLE = 10
"""Records of an event type that fail in succession at one line before it is reported."""


class Failing(NamedTuple):
    """A line of a user's code (`events/meter.py:12`) at which `records` of an event type failed in succession."""

    event: str
    stage: str
    line: str
    error: str
    records: int

    def log_fields(self) -> dict[str, str | int]:
        """Return the fields of a log event, without the event type."""
        return {"stage": self.stage, "line": self.line, "error": self.error, "records": self.records}


@dataclass(slots=True)
class _Run:
    stage: str
    line: str
    error: str
    records: int = 0


class FailingCode:
    """Counts, for each event type, the records that failed in succession at the same line of a user's code.

    Records are counted in order, so the result does not depend on batches. A record that is stored, or that fails at
    another line, ends the succession. Records that did not reach the line are ignored: repeats, records that violate
    the schema and, for `calculate`, records that break a rule.
    """

    def __init__(self, stop_after: int) -> None:
        self._stop_after = stop_after
        self._runs: dict[str, _Run] = {}
        self._reported: dict[str, str] = {}

    def take(self, result: Processed) -> list[Failing]:
        """Count the records of a batch; return the lines to report, each once until another line fails.

        Raises ConfigError when `stop_after` records have failed in succession, unless it is 0.
        """
        failed = _of_calculations(result.failed)
        for name in self._runs.keys() & result.passed.keys() - failed.keys():
            del self._runs[name]
        for name, failures in failed.items():
            rows = result.passed[name].rows if name in result.passed else None
            self._count(name, failures, rows)
        return [self._now(name, run) for name, run in self._runs.items() if self._is_new(name, run)]

    def records(self) -> dict[str, int]:
        """Return the number of records that failed in succession, from `NOTICEABLE` on, by event type."""
        return {name: run.records for name, run in self._runs.items() if run.records >= NOTICEABLE}

    def _count(self, name: str, failures: Iterable[Failure], passed: IntVector | None) -> None:
        before = 0
        for failure in failures:
            stored = 0 if passed is None else int(passed.searchsorted(failure.row))
            if stored > before:
                self._runs.pop(name, None)
                before = stored
            self._add(name, failure)
        if passed is not None and len(passed) > before:
            self._runs.pop(name, None)

    def _add(self, name: str, failure: Failure) -> None:
        run, line = self._runs.get(name), line_in(failure.reason)
        if failure.code == Code.RULE_BROKEN:  # its rules were evaluated without an error
            if run is not None and run.stage == failure.stage:
                del self._runs[name]
            return
        if line is None:
            self._runs.pop(name, None)
            return
        if run is None or (run.stage, run.line) != (failure.stage, line):
            # Only the class of the error, because its message may quote the payload.
            run = self._runs[name] = _Run(
                failure.stage, line, failure.reason.partition(":")[0].partition(" ")[0]
            )
        run.records += 1
        if run.records == self._stop_after:
            what = f"event {name!r}: {run.records} records in succession failed at {line} ({run.error})"
            hint = "correct the module and start again from the last checkpoint (app.stop_after_failures)"
            raise ConfigError([Problem(what, hint)])

    def _is_new(self, name: str, run: _Run) -> bool:
        return run.records >= NOTICEABLE and self._reported.get(name) != run.line

    def _now(self, name: str, run: _Run) -> Failing:
        self._reported[name] = run.line
        return Failing(name, run.stage, run.line, run.error, run.records)


def _of_calculations(failed: Iterable[Failure]) -> Mapping[str, list[Failure]]:
    """Return the failures of rules and calculations of each event type of which a calculation failed."""
    found: dict[str, list[Failure]] = {}
    concerned = {failure.event for failure in failed if failure.code == Code.CALCULATION_FAILED}
    for failure in failed if concerned else ():
        is_of_code = failure.code in (Code.CALCULATION_FAILED, Code.RULE_BROKEN)
        if is_of_code and failure.event is not None and failure.event in concerned:
            found.setdefault(failure.event, []).append(failure)
    return found
