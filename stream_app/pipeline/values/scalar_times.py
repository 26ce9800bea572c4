"""The logical types of dates and times."""

from __future__ import annotations

from stream_app.pipeline.values import time_text
from stream_app.pipeline.values.avro_types import DATE, INSTANT, LOCAL, TIME_OF_DAY, AvroType
from stream_app.pipeline.values.scalar import (
    NUMBER,
    TEXT,
    AvroPrimitive,
    Scalar,
    integer_default,
    parse_integer,
)

PLAUSIBLE_MS = 30 * 365 * 86_400_000
"""The largest plausible distance between a time and its record's arrival: 30 years, in milliseconds.

A number is taken to be in a coarser unit (seconds in a field of milliseconds) if it is within this distance when read
in the coarser unit, but not when read in the field's own.
"""
_COARSER = {1_000: (("seconds", 1_000),), 1_000_000: (("seconds", 1_000), ("milliseconds", 1))}
_UNIT = {1_000: "milliseconds", 1_000_000: "microseconds"}


class _Ticks(Scalar):
    """A time that Avro encodes as an integer number of ticks. The result is text, or the integer in a `column`."""

    kinds = frozenset({TEXT, NUMBER})
    low: int
    high: int

    def from_number(self, raw: bytes, arrived: int | None) -> object:
        return self.from_avro(parse_integer(raw, self), arrived)

    def from_avro(self, value: AvroPrimitive, arrived: int | None) -> object:
        return self._output(self._in_range(value))

    def from_default(self, value: object) -> object:
        return self.from_avro(integer_default(value, self), None)

    def from_text(self, value: str, arrived: int | None) -> object:
        ticks = self._parse(value)
        if ticks is None:
            raise self.violation("invalid text")
        return self._output(self._in_range(ticks))

    def _in_range(self, ticks: int) -> int:
        if not self.low <= ticks <= self.high:
            raise self.violation("a value outside that range")
        return ticks

    def _parse(self, text: str) -> int | None:
        raise NotImplementedError

    def _output(self, ticks: int) -> object:
        raise NotImplementedError


class Instant(_Ticks):
    """`timestamp-millis` and `timestamp-micros`."""

    def __init__(self, per_second: int, column: bool) -> None:
        self.per_second, self._column = per_second, column
        self.low, self.high = _range(per_second)
        self.expected = (
            f"a time with a zone (RFC 3339) of the years 1 to 9999, or {_UNIT[per_second]} since 1970"
        )

    def from_avro(self, value: AvroPrimitive, arrived: int | None) -> object:
        """Convert a number of ticks; reject one that seems to be in a coarser unit."""
        ticks = self._in_range(value)
        coarser = None if arrived is None else coarser_unit(ticks, self.per_second, arrived)
        if coarser is not None:
            raise self.violation(f"a number that looks like {coarser} since 1970")
        return self._output(ticks)

    def _parse(self, text: str) -> int | None:
        return time_text.parse_instant(text, self.per_second)

    def _output(self, ticks: int) -> object:
        return ticks if self._column else time_text.instant_text(ticks, self.per_second)


class LocalTime(_Ticks):
    """`local-timestamp-millis` and `local-timestamp-micros`."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self.low, self.high = _range(per_second)
        self.expected = (
            f"a date and time without a zone of the years 1 to 9999, or {_UNIT[per_second]} since 1970"
        )

    def _parse(self, text: str) -> int | None:
        return time_text.parse_local_time(text, self._per_second)

    def _output(self, ticks: int) -> object:
        return time_text.local_time_text(ticks, self._per_second)


class TimeOfDay(_Ticks):
    """`time-millis` and `time-micros`."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self.low, self.high = 0, 86_400 * per_second - 1
        self.expected = f"a time of day (HH:MM:SS, without an offset), or {_UNIT[per_second]} since midnight"

    def _parse(self, text: str) -> int | None:
        return time_text.parse_time_of_day(text, self._per_second)

    def _output(self, ticks: int) -> object:
        return time_text.time_of_day_text(ticks, self._per_second)


class Date(_Ticks):
    """`date`."""

    expected = "a date (YYYY-MM-DD) of the years 1 to 9999, or days since 1970"
    low, high = time_text.FIRST_DAY, time_text.LAST_DAY

    def _parse(self, text: str) -> int | None:
        return time_text.parse_date(text)

    def _output(self, ticks: int) -> object:
        return time_text.date_text(ticks)


def coarser_unit(ticks: int, per_second: int, arrived: int) -> str | None:
    """Return the coarser unit that a number of ticks seems to be in, or None if its own unit is plausible.

    The result depends only on the number and on the arrival of its own record (milliseconds since 1970).
    """
    if abs(ticks * 1_000 // per_second - arrived) <= PLAUSIBLE_MS:
        return None
    for unit, milliseconds in _COARSER[per_second]:
        if abs(ticks * milliseconds - arrived) <= PLAUSIBLE_MS:
            return unit
    return None


def _range(per_second: int) -> tuple[int, int]:
    return time_text.FIRST_SECOND * per_second, (time_text.LAST_SECOND + 1) * per_second - 1


def time_scalar(avro: AvroType, column: bool) -> Scalar | None:
    """Return the reader of a date or time type.

    None for any other type, and for nanoseconds, which are finer than the columns of times.
    """
    family, unit = avro.logical or ("", 0)
    if family == DATE:
        return Date()
    if unit not in _UNIT:
        return None
    match family:
        case str(name) if name == INSTANT:
            return Instant(unit, column)
        case str(name) if name == LOCAL:
            return LocalTime(unit)
        case str(name) if name == TIME_OF_DAY:
            return TimeOfDay(unit)
    return None
