"""Finds the failing records of a range by running its records through the pipeline again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import groupby

import msgspec

from stream_app.model.record import Failure, Position, Record
from stream_app.model.segment import token
from stream_app.pipeline.flow import process
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.state.shard_state import ShardState

# Processes the next records of a range and returns the failures by row.
Trial = Callable[[Sequence[Record]], Mapping[int, Failure]]
# Starts the trial of one range.
TrialFactory = Callable[[], Trial]


class Outcome(StrEnum):
    """The outcome of a trial for one record of a range."""

    FAILED = "failed"  # stored as a failure
    PASSED = "innocent"  # passed the pipeline, while other records of its range failed


class Run(msgspec.Struct, frozen=True):
    """Consecutive records with the same outcome; `first` and `last` are tokens of their positions."""

    outcome: Outcome = msgspec.field(name="verdict")
    first: str
    last: str
    count: int


def pipeline_trials(registry: Registry, *, seen_ids: int, max_bytes: int) -> TrialFactory:
    """Return a factory of trials that run the pipeline, each range with empty state.

    Since earlier records are unknown, rules that use a device's previous value do not apply to its first record of a
    range, and a repeated record passes. `seen_ids` and `max_bytes` are the consumer's settings.
    """
    events = {name: codec.event for name, codec in registry.codecs.items()}

    def start() -> Trial:
        state = ShardState(events, seen_ids)

        def trial(records: Sequence[Record]) -> Mapping[int, Failure]:
            result = process(records, registry, state, max_bytes)
            return {failure.row: failure for failure in result.failed}

        return trial

    return start


def pass_all() -> Trial:
    """Start a trial that every record passes, so that all records of the range are stored as failures."""
    return lambda _records: {}


def runs(marked: Sequence[tuple[Position, Outcome]]) -> list[Run]:
    """Group consecutive positions with the same outcome into runs."""
    return list(_runs(marked))


def _runs(marked: Sequence[tuple[Position, Outcome]]) -> Iterator[Run]:
    for outcome, group in groupby(marked, key=lambda pair: pair[1]):
        positions = [position for position, _ in group]
        yield Run(outcome, token(positions[0]), token(positions[-1]), len(positions))


def joined(parts: Sequence[Run]) -> list[Run]:
    """Merge the runs of consecutive parts of a range."""
    whole: list[Run] = []
    for part in parts:
        if whole and whole[-1].outcome == part.outcome:
            before = whole.pop()
            whole.append(Run(part.outcome, before.first, part.last, before.count + part.count))
        else:
            whole.append(part)
    return whole
