"""The sink checks detect incorrect sinks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from stream_app.model.record import Code, Failure
from stream_app.model.segment import Segment, token
from stream_app.sinks.laws import Step, check, watched
from tests.support import LAST_SINK, MemorySink, Stores

Stored = dict[str, Any]


class Table:
    """A table in memory."""

    def __init__(self, items: Stored) -> None:
        self.items = items

    def put(self, key: str, value: Any) -> None:
        self.items[key] = value

    def add(self, key: str, value: int) -> None:
        self.items[key] = self.items.get(key, 0) + value

    def clear(self) -> None:
        self.items.clear()


class PerRow:
    """A correct sink: an item for each row, under the position of its record."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def write(self, segment: Segment) -> Sequence[Failure]:
        for batch in segment.passed.values():
            for at, position in enumerate(segment.positions(batch.rows.tolist())):
                self.table.put(f"{segment.shard}/{token(position)}", float(batch["value"][at]))
        return ()

    def close(self) -> None: ...


class Adding(PerRow):
    def write(self, segment: Segment) -> Sequence[Failure]:
        self.table.add(segment.shard, sum(map(len, segment.passed.values())))
        return ()


class MarkedFirst(PerRow):
    """Marks a segment as written as soon as its first request is made."""

    def write(self, segment: Segment) -> Sequence[Failure]:
        if segment.name in self.table.items:
            return ()
        self.table.put(segment.name, True)
        return super().write(segment)


class Swallowing(PerRow):
    def write(self, segment: Segment) -> Sequence[Failure]:
        try:
            return super().write(segment)
        except Exception:
            return ()


class Cleaning(PerRow):
    """Turns the end of the process into an error."""

    def write(self, segment: Segment) -> Sequence[Failure]:
        try:
            return super().write(segment)
        except BaseException as error:
            raise ValueError from error


class Unwilling(PerRow):
    def write(self, segment: Segment) -> Sequence[Failure]:
        if not segment.passed:
            return [Failure(0, "sink", Code.SINK_REJECTED, "empty", "reading")]
        return super().write(segment)


class Newest(PerRow):
    """Keeps only the last written segment of all shards."""

    def write(self, segment: Segment) -> Sequence[Failure]:
        if segment.passed:
            self.table.put("last", segment.name)
        return ()


class NewestOfShard(PerRow):
    def write(self, segment: Segment) -> Sequence[Failure]:
        if segment.passed:
            self.table.put(segment.shard, segment.name)
        return ()


class WholeSegment(PerRow):
    def write(self, segment: Segment) -> Sequence[Failure]:
        self.table.put(segment.name, len(segment.records))
        return ()


class Fickle(PerRow):
    """Rejects different rows the second time."""

    def write(self, segment: Segment) -> Sequence[Failure]:
        known = self.table.items.get(segment.name)
        self.table.put(segment.name, 1)
        return [Failure(0, "sink", Code.SINK_REJECTED, "no", "reading")] if known else ()


class Hasty(PerRow):
    def build(self, segment: Segment) -> None:
        self.write(segment)


class Offline(PerRow):
    def write(self, segment: Segment) -> Sequence[Failure]:
        return ()


def law(kind: Callable[[Table], Any]) -> None:
    items: Stored = {}

    def make(step: Step) -> Any:
        return kind(watched(Table(items), step))

    check(make, stored=lambda: dict(items), clear=items.clear)


def test_a_correct_sink_passes_the_checks() -> None:
    law(PerRow)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Adding, "a segment that is written twice is stored differently from one written once: expected {"),
        (MarkedFirst, r"interrupted after request 1 and its repetition, the stored state differs"),
        (Swallowing, "write returns although it failed before request 1: RequestFailedError"),
        (Cleaning, r"an interruption before request 1 becomes ValueError\(\)"),
        (Unwilling, "a segment without stored rows is rejected"),
        (Newest, "segments of two shards affect each other"),
        (NewestOfShard, "an older segment that is written again after a newer one changes"),
        (WholeSegment, "a segment that was closed by the clock replaces the same segment with more records"),
        (Fickle, "a second write of a segment rejects .*the first one"),
        (Hasty, "build makes a request"),
        (Offline, "the sink reports no request"),
    ],
)
def test_a_violated_requirement_is_named(kind: Callable[[Table], Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        law(kind)


def test_the_in_memory_sink_of_other_tests_passes_the_checks() -> None:
    stored: Stored = {}

    def make(step: Step) -> MemorySink:
        return MemorySink(Stores(stored=stored, inject_fault=lambda _effect: step()), LAST_SINK)

    check(make, stored=lambda: dict(stored), clear=stored.clear)
