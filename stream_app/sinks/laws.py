"""The contract of a sink as tests: shipped sinks pass it, and a user's sink should."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import numpy as np

from stream_app.model.record import Batch, Code, Failure, Record
from stream_app.model.segment import PrebuildingSink, Segment, Sink

T = TypeVar("T")
Step = Callable[[], None]
MakeSegment = Callable[[str, int, int], Segment]
_SHARDS = ("shardId-000000000000", "shardId-000000000001")
_FIRST_SEQUENCE = 49_600_000_000_000_000_000_000_000_000_000_000_000_000_000_000_000_000_000
_ARRIVED = 1_767_225_600_000  # 2026-01-01T00:00:00Z
_ROWS = 5
_DEVICES = 3
_SHOWN = 300


class InterruptedWriteError(BaseException):
    """The process ends at this point of a write. Not an Exception: a sink must not handle it."""


class RequestFailedError(Exception):
    """A request of a sink failed with an error that no retry can remove."""


def check(
    make_sink: Callable[[Step], Sink],
    *,
    stored: Callable[[], object],
    clear: Callable[[], None],
    segment: MakeSegment | None = None,
) -> None:
    """Check that a sink keeps the contract of `Sink`. Raises AssertionError that names the broken law.

    `make_sink` creates a sink as after a restart of the process, on storage that keeps its content. The function that
    it receives must be called before and after each request that the sink makes; `watched` does so for boto3
    clients. `stored` returns everything that is stored in a form that compares with `==`; `clear` deletes it.
    `segment` makes segments of the sink's own event types from a shard, the number of the first record and the number
    of records; later records must have later event times. By default `sample_segment` is used.

    The laws: writing a segment twice equals writing it once; a write that was interrupted at any request and is
    repeated ends in the same state; a failed request raises; a segment without stored rows is accepted; segments of
    two shards do not affect each other; an older segment, or the shorter form of a segment that was closed by the
    clock, changes nothing that a newer or longer one stored; `build`, if there is one, makes no request.
    """
    laws = _Laws(make_sink, stored, clear, segment or sample_segment)
    laws.repeated_write()
    laws.interrupted_write()
    laws.failed_request()
    laws.empty_segment()
    laws.two_shards()
    laws.older_segment()
    laws.shorter_segment()
    laws.build()


def watched(target: T, step: Step) -> T:
    """Return a proxy of a client, or of any other object, that calls `step` before and after each method call."""
    return cast(
        "T", _Watched(target, step)
    )  # it has every attribute of the target, which no type can express


def sample_segment(shard: str, start: int, count: int) -> Segment:
    """Return a segment of `count` records from number `start` of a shard, all of them stored rows.

    The event is `reading`, with the columns id, device, time, value, arrived, score and anomaly.
    """
    numbers = np.arange(start, start + count)
    columns = {
        "id": np.array([f"{shard}/{number}" for number in numbers], dtype=object),
        "device": np.array([f"{shard}/device {number % _DEVICES}" for number in numbers], dtype=object),
        "time": (_ARRIVED - 60_000 + numbers).astype("datetime64[ms]"),
        "value": numbers / 2,
        "arrived": (_ARRIVED + numbers).astype("datetime64[ms]"),
        "score": numbers / 10,
        "anomaly": numbers % 2 == 0,
    }
    records = [
        Record(b"{}", f"device {number % _DEVICES}", str(_FIRST_SEQUENCE + number), _ARRIVED + number)
        for number in numbers.tolist()
    ]
    batch = Batch("reading", columns, np.arange(count))
    return Segment("laws", "devices", shard, records, {"reading": batch}, (), np.zeros(0, np.int64))


class _Watched:
    def __init__(self, target: object, step: Step) -> None:
        self._target, self._step = target, step

    def __getattr__(self, name: str) -> Any:  # whatever the target has
        found = getattr(self._target, name)
        return self._stepping(found) if callable(found) else found

    def _stepping(self, method: Callable[..., T]) -> Callable[..., T]:
        def call(*arguments: object, **named: object) -> T:
            self._step()
            result = method(*arguments, **named)
            self._step()
            return result

        return call


@dataclass
class _Steps:
    """Counts steps, and raises `error` at the step number `at`."""

    at: int = -1
    error: type[BaseException] = InterruptedWriteError
    count: int = 0

    def __call__(self) -> None:
        self.count += 1
        if self.count - 1 == self.at:
            raise self.error(f"step {self.at}")


@dataclass(frozen=True)
class _Laws:
    make_sink: Callable[[Step], Sink]
    stored: Callable[[], object]
    clear: Callable[[], None]
    segment: MakeSegment

    def repeated_write(self) -> None:
        one = self._one()
        first = self._write(one)
        once = self.stored()
        second = self._write(one)
        _require(first == second, f"a second write of a segment rejects {second}, the first one {first}")
        _same(
            once, self.stored(), "a segment that is written twice is stored differently from one written once"
        )

    def interrupted_write(self) -> None:
        expected, count = self._uninterrupted()
        for at in range(count):
            self._broken_write(_Steps(at, InterruptedWriteError))
            self._write(self._one())
            what = f"after a write that was interrupted {_place(at)} and its repetition"
            _same(expected, self.stored(), f"{what}, the stored state differs from that of one write")

    def failed_request(self) -> None:
        _, count = self._uninterrupted()
        for at in range(count):
            self._broken_write(_Steps(at, RequestFailedError))

    def empty_segment(self) -> None:
        full, empty = self._one(), _without_rows(self.segment(_SHARDS[0], _ROWS, _ROWS))
        rejected = self._write(empty)
        _require(not rejected, f"a segment without stored rows is rejected: {rejected}")
        what = "a segment without stored rows changes what another segment stored"
        _same(self._state_after(empty, full), self._state_after(full, empty, empty), what)

    def two_shards(self) -> None:
        one, two = (self.segment(shard, 0, _ROWS) for shard in _SHARDS)
        what = (
            "segments of two shards affect each other: the stored state depends on the order of their writes"
        )
        _same(self._state_after(one, two), self._state_after(two, one), what)
        _same(self._state_after(one, two), self._state_after(one, two, one), what)

    def older_segment(self) -> None:
        older, newer = self._one(), self.segment(_SHARDS[0], _ROWS, _ROWS)
        what = "an older segment that is written again after a newer one changes what the newer one stored"
        _same(self._state_after(older, newer), self._state_after(older, newer, older), what)
        _same(self._state_after(older, newer), self._state_after(newer, older), what)

    def shorter_segment(self) -> None:
        longer, shorter = self._one(), replace(self.segment(_SHARDS[0], 0, _ROWS - 2), by_clock=True)
        what = "a segment that was closed by the clock replaces the same segment with more records"
        _same(self._state_after(longer), self._state_after(longer, shorter), what)

    def build(self) -> None:
        steps = _Steps()
        sink = self.make_sink(steps)
        if isinstance(sink, PrebuildingSink):
            self.clear()
            before = self.stored()
            sink.build(self._one())
            _require(not steps.count, "build makes a request")
            _same(before, self.stored(), "build stores something")
        sink.close()

    def _one(self) -> Segment:
        return self.segment(_SHARDS[0], 0, _ROWS)

    def _write(self, one: Segment, step: Step = lambda: None) -> Sequence[Failure]:
        sink = self.make_sink(step)
        try:
            return sorted(sink.write(one), key=lambda failure: failure.row)
        finally:
            sink.close()

    def _state_after(self, *segments: Segment) -> object:
        self.clear()
        for one in segments:
            self._write(one)
        return self.stored()

    def _uninterrupted(self) -> tuple[object, int]:
        """The state after one write, and its number of steps."""
        self.clear()
        steps = _Steps()
        self._write(self._one(), steps)
        _require(steps.count > 0, "the sink reports no request: call the function that make_sink receives")
        return self.stored(), steps.count

    def _broken_write(self, steps: _Steps) -> None:
        self.clear()
        try:
            self._write(self._one(), steps)
        except steps.error:
            return
        except Exception as error:
            if steps.error is not InterruptedWriteError:
                return  # the sink may raise an error of its own
            raise AssertionError(f"an interruption {_place(steps.at)} becomes {error!r}") from error
        raise AssertionError(f"write returns although it failed {_place(steps.at)}: {steps.error.__name__}")


def _without_rows(one: Segment) -> Segment:
    failures = [
        Failure(row, "verify", Code.SCHEMA_VIOLATION, "a rule failed", event)
        for event, batch in one.passed.items()
        for row in batch.rows.tolist()
    ]
    return one.rejecting(failures)


def _place(at: int) -> str:
    return f"{'after' if at % 2 else 'before'} request {at // 2 + 1}"


def _same(expected: object, found: object, what: str) -> None:
    _require(found == expected, f"{what}: expected {_shown(expected)}, found {_shown(found)}")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)  # not an assert statement, which python -O removes


def _shown(state: object) -> str:
    text = repr(state)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
