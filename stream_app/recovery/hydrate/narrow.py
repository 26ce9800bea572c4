"""Narrow a range to the guilty: its records go through the pipeline, which has nothing against most of them."""

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

# Takes the next records of a range; what fails, by its row.
Trial = Callable[[Sequence[Record]], Mapping[int, Failure]]
# Begins the trial of one range.
Judge = Callable[[], Trial]


class Judged(StrEnum):
    """What became of a record of a range."""

    FAILED = "failed"  # stored as a failure
    INNOCENT = "innocent"  # the pipeline has nothing against it, but against others of its range


class Run(msgspec.Struct, frozen=True):
    """Consecutive records with the same verdict, by the tokens of the first and the last."""

    verdict: Judged
    first: str
    last: str
    count: int


def pipeline_judge(registry: Registry, *, seen_ids: int, max_bytes: int) -> Judge:
    """Judges by the pipeline, each range with a fresh state: a record's past is not known here.

    So a rule that looks at a device's last value passes the device's first record of a range, and a repeat is
    innocent. `seen_ids` and `max_bytes` are the consumer's settings.
    """
    events = {name: codec.event for name, codec in registry.codecs.items()}

    def judge() -> Trial:
        state = ShardState(events, seen_ids)

        def trial(records: Sequence[Record]) -> Mapping[int, Failure]:
            result = process(records, registry, state, max_bytes)
            return {failure.row: failure for failure in result.failed}

        return trial

    return judge


def lenient() -> Trial:
    """The trial in which nothing is proved: a range is not narrowed."""
    return lambda _records: {}


def runs(marked: Sequence[tuple[Position, Judged]]) -> list[Run]:
    """Consecutive positions of the same verdict as one."""
    return list(_runs(marked))


def _runs(marked: Sequence[tuple[Position, Judged]]) -> Iterator[Run]:
    for verdict, group in groupby(marked, key=lambda pair: pair[1]):
        positions = [position for position, _ in group]
        yield Run(verdict, token(positions[0]), token(positions[-1]), len(positions))


def joined(parts: Sequence[Run]) -> list[Run]:
    """The runs of consecutive parts of a range as those of the whole."""
    whole: list[Run] = []
    for part in parts:
        if whole and whole[-1].verdict == part.verdict:
            before = whole.pop()
            whole.append(Run(part.verdict, before.first, part.last, before.count + part.count))
        else:
            whole.append(part)
    return whole
