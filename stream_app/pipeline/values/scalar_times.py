"""Dates and times by Avro type."""

from __future__ import annotations

from typing import Any

from stream_app.pipeline.values import time_text
from stream_app.pipeline.values.avro_types import DATE, INSTANT, LOCAL, TIME_OF_DAY, AvroType
from stream_app.pipeline.values.scalar import NUMBER, TEXT, Scalar, integer_default, parse_integer

# A number of seconds in a field of finer ticks is known by this: as seconds it lies within so many milliseconds of
# the record's arrival, as ticks it does not.
PLAUSIBLE_MS = 30 * 365 * 86_400_000
_COARSER = {1_000: (("seconds", 1_000),), 1_000_000: (("seconds", 1_000), ("milliseconds", 1))}
_UNIT = {1_000: "milliseconds", 1_000_000: "microseconds"}


class _Ticks(Scalar):
    """A time that Avro carries as a whole number. It is shown as text, or as that number (`column`)."""

    kinds = frozenset({TEXT, NUMBER})
    low: int
    high: int

    def number(self, raw: bytes, arrived: int | None) -> Any:
        return self.carried(parse_integer(raw, self), arrived)

    def carried(self, value: Any, arrived: int | None) -> Any:
        return self._shown(self._within(value))

    def default(self, value: Any) -> Any:
        return self.carried(integer_default(value, self), None)

    def text(self, value: str, arrived: int | None) -> Any:
        ticks = self._ticks(value)
        if ticks is None:
            raise self.wrong("text that is not")
        return self._shown(self._within(ticks))

    def _within(self, ticks: int) -> int:
        if not self.low <= ticks <= self.high:
            raise self.wrong("one outside that range")
        return ticks

    def _ticks(self, text: str) -> int | None:
        raise NotImplementedError

    def _shown(self, ticks: int) -> Any:
        raise NotImplementedError


class Instant(_Ticks):
    """`timestamp-millis` and `-micros`."""

    def __init__(self, per_second: int, column: bool) -> None:
        self.per_second, self._column = per_second, column
        self.low, self.high = _range(per_second)
        self.expected = (
            f"a time with a zone (RFC 3339) of the years 1 to 9999, or {_UNIT[per_second]} since 1970"
        )

    def carried(self, value: Any, arrived: int | None) -> Any:
        """A number of ticks, refused where it seems to be in a coarser unit."""
        ticks = self._within(value)
        coarser = None if arrived is None else coarser_unit(ticks, self.per_second, arrived)
        if coarser is not None:
            raise self.wrong(f"a number that looks like {coarser} since 1970")
        return self._shown(ticks)

    def _ticks(self, text: str) -> int | None:
        return time_text.parse_instant(text, self.per_second)

    def _shown(self, ticks: int) -> Any:
        return ticks if self._column else time_text.instant_text(ticks, self.per_second)


class LocalTime(_Ticks):
    """`local-timestamp-millis` and `-micros`."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self.low, self.high = _range(per_second)
        self.expected = (
            f"a date and time without a zone of the years 1 to 9999, or {_UNIT[per_second]} since 1970"
        )

    def _ticks(self, text: str) -> int | None:
        return time_text.parse_local_time(text, self._per_second)

    def _shown(self, ticks: int) -> Any:
        return time_text.local_time_text(ticks, self._per_second)


class TimeOfDay(_Ticks):
    """`time-millis` and `-micros`."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self.low, self.high = 0, 86_400 * per_second - 1
        self.expected = f"a time of day (HH:MM:SS, without an offset), or {_UNIT[per_second]} since midnight"

    def _ticks(self, text: str) -> int | None:
        return time_text.parse_time_of_day(text, self._per_second)

    def _shown(self, ticks: int) -> Any:
        return time_text.time_of_day_text(ticks, self._per_second)


class Date(_Ticks):
    """`date`."""

    expected = "a date (YYYY-MM-DD) of the years 1 to 9999, or days since 1970"
    low, high = time_text.FIRST_DAY, time_text.LAST_DAY

    def _ticks(self, text: str) -> int | None:
        return time_text.parse_date(text)

    def _shown(self, ticks: int) -> Any:
        return time_text.date_text(ticks)


def coarser_unit(ticks: int, per_second: int, arrived: int) -> str | None:
    """The unit that a number of ticks seems to be in, where that is not `per_second`.

    It depends on the number and on the record's own arrival alone.
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
    """How a date or time is read; None for another type, or one that is finer than its columns."""
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
