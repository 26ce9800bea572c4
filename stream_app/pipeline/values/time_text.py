"""Parses and formats dates and times (RFC 3339) in integer ticks; fractions finer than a tick are truncated."""

from __future__ import annotations

import datetime as dt
import re

_DATE = r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
_TIME = r"([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
_date = re.compile(_DATE).fullmatch
_time = re.compile(_TIME).fullmatch
_local = re.compile(f"{_DATE}[Tt ]{_TIME}").fullmatch
_instant = re.compile(f"{_DATE}[Tt ]{_TIME}(?:[Zz]|([+-])([0-9]{{2}}):?([0-9]{{2}}))").fullmatch
_EPOCH = dt.date(1970, 1, 1).toordinal()
_DAY = 86_400
FIRST_DAY, LAST_DAY = 1 - _EPOCH, dt.date.max.toordinal() - _EPOCH
FIRST_SECOND, LAST_SECOND = FIRST_DAY * _DAY, (LAST_DAY + 1) * _DAY - 1
_MICROS = 1_000_000


def parse_date(text: str) -> int | None:
    """Parse a date into days since 1970; return None for any other text."""
    found = _date(text)
    return None if found is None else _days(*found.groups())


def parse_time_of_day(text: str, per_second: int) -> int | None:
    """Parse a time of day into ticks since midnight; return None for any other text, or one with an offset."""
    found = _time(text)
    return None if found is None else _ticks(0, found.groups(), per_second)


def parse_local_time(text: str, per_second: int) -> int | None:
    """Parse a date and time without a zone into ticks since 1970; return None for any other text."""
    found = _local(text)
    if found is None:
        return None
    day = _days(*found.groups()[:3])
    return None if day is None else _ticks(day * _DAY, found.groups()[3:], per_second)


def parse_instant(text: str, per_second: int) -> int | None:
    """Parse a date and time with a zone into ticks since 1970; return None for any other text.

    An offset may move the result out of the years 1 to 9999: the caller checks the range.
    """
    found = _instant(text)
    if found is None:
        return None
    day = _days(*found.groups()[:3])
    sign, hours, minutes = found.groups()[7:]
    offset = 0
    if sign is not None:
        if hours > "23" or minutes > "59":
            return None
        offset = 3600 * int(hours) + 60 * int(minutes)
    if day is None:
        return None
    return _ticks(day * _DAY - (-offset if sign == "-" else offset), found.groups()[3:7], per_second)


def _days(year: str, month: str, day: str) -> int | None:
    try:
        return dt.date(int(year), int(month), int(day)).toordinal() - _EPOCH
    except ValueError:
        return None


def _ticks(start: int, time: tuple[str, ...], per_second: int) -> int | None:
    hour, minute, second, fraction = time
    if hour > "23" or minute > "59" or second > "59":
        return None
    width = len(str(per_second)) - 1
    ticks = int((fraction or "")[:width].ljust(width, "0"))
    return (start + 3600 * int(hour) + 60 * int(minute) + int(second)) * per_second + ticks


def date_text(value: int) -> str:
    """Format days since 1970 as a date."""
    return dt.date.fromordinal(value + _EPOCH).isoformat()


def time_of_day_text(value: int, per_second: int) -> str:
    """Format ticks since midnight as a time of day."""
    return (dt.datetime(1, 1, 1) + dt.timedelta(microseconds=_micros(value, per_second))).time().isoformat()


def local_time_text(value: int, per_second: int) -> str:
    """Format ticks since 1970 as a date and time without a zone."""
    return (dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=_micros(value, per_second))).isoformat()


def instant_text(value: int, per_second: int) -> str:
    """Format ticks since 1970 as a date and time in UTC."""
    return local_time_text(value, per_second) + "Z"


def _micros(value: int, per_second: int) -> int:
    return value * _MICROS // per_second
