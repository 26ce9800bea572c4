"""Compiled readers of times: RFC 3339 text in its common form, and detection of numbers in a coarser unit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anomaly.kernels.compiled import compiled, inlined
from stream_app.pipeline.values.scalar_times import PLAUSIBLE_MS
from stream_app.pipeline.values.time_text import FIRST_SECOND, LAST_SECOND

Bytes = NDArray[np.uint8]
# Markers outside the range of valid times: NO_ARRIVAL stands for no arrival to compare with, UNDECIDED for a time
# that the exact reader (`scalar_times.Instant`) must read.
NO_ARRIVAL = int(np.iinfo(np.int64).min)
UNDECIDED = NO_ARRIVAL + 1
_PLAUSIBLE = PLAUSIBLE_MS
_FIRST, _LAST = FIRST_SECOND, LAST_SECOND
_NO_OFFSET = 1_000_000


@inlined
def two_digits(data: Bytes, at: int) -> int:
    """Return the number of two decimal digits, or 1000 if one of them is not a digit."""
    tens, ones = (int(data[at]) - 48) & 0xFF, (int(data[at + 1]) - 48) & 0xFF
    return 10 * tens + ones if tens <= 9 and ones <= 9 else 1_000


@inlined
def days_to_month(year: int, month: int) -> int:
    """Return the days from 1970 to the first of a month, for the years 1 to 9999.

    Counts years from March, so that a leap day is the last day of its year
    (https://howardhinnant.github.io/date_algorithms.html#days_from_civil).
    """
    start = year if month > 2 else year - 1
    centuries = start // 100
    of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5
    return 365 * start + (start >> 2) - centuries + (centuries >> 2) + of_year - 719468


@compiled
def parse_offset(data: Bytes, at: int, end: int) -> int:
    """Parse an offset `±HH:MM` from `at` to `end` into seconds; return _NO_OFFSET for anything else."""
    if at != end - 6 or data[at + 3] != 0x3A or not (data[at] == 0x2B or data[at] == 0x2D):  # +HH:MM
        return _NO_OFFSET
    hours, minutes = two_digits(data, at + 1), two_digits(data, at + 4)
    if hours > 23 or minutes > 59:
        return _NO_OFFSET
    seconds = 3600 * hours + 60 * minutes
    return seconds if data[at] == 0x2B else -seconds


@compiled
def parse_instant(data: Bytes, at: int, size: int, per_second: int) -> int:
    """Parse a time into ticks since 1970 and truncate finer fractions; return UNDECIDED if it cannot.

    Accepts `YYYY-MM-DDTHH:MM:SS`, an optional fraction, and `Z` or an offset. Invalid times and other notations are
    UNDECIDED.
    """
    end = at + size
    if size < 20 or data[at + 4] != 0x2D or data[at + 7] != 0x2D:
        return UNDECIDED
    if data[at + 10] != 0x54 or data[at + 13] != 0x3A or data[at + 16] != 0x3A:
        return UNDECIDED
    century, year = two_digits(data, at), two_digits(data, at + 2)
    month, day = two_digits(data, at + 5), two_digits(data, at + 8)
    hour, minute, second = two_digits(data, at + 11), two_digits(data, at + 14), two_digits(data, at + 17)
    if century > 99 or year > 99 or month > 12 or day > 31 or century + year == 0:
        return UNDECIDED
    if hour > 23 or minute > 59 or second > 59 or month == 0 or day == 0:
        return UNDECIDED
    year += 100 * century
    first = days_to_month(year, month)
    if day > 28 and first + day > (days_to_month(year, month + 1) if month < 12 else first + 31):
        return UNDECIDED
    place = at + 19
    ticks, unit = 0, per_second
    if data[place] == 0x2E:
        place += 1
        begin = place
        while place < end and 48 <= data[place] <= 57:
            unit //= 10
            ticks += unit * (int(data[place]) - 48)
            place += 1
        if place in (begin, end):
            return UNDECIDED
    seconds = 86_400 * (first + day - 1) + 3_600 * hour + 60 * minute + second
    if place != end - 1 or (data[place] != 0x5A and data[place] != 0x7A):  # Z
        offset = parse_offset(data, place, end)
        seconds -= offset
        if offset == _NO_OFFSET or seconds < _FIRST or seconds > _LAST:
            return UNDECIDED
    return int(seconds) * per_second + ticks


@compiled
def is_coarser_unit(value: int, per_second: int, arrived: int) -> bool:
    """Whether a positive number of ticks seems to be in a coarser unit, as `scalar_times.coarser_unit` decides."""
    if value > 100_000_000_000_000:
        return False
    milliseconds = value if per_second == 1_000 else value // 1_000
    if abs(milliseconds - arrived) <= _PLAUSIBLE:
        return False
    if abs(value * 1_000 - arrived) <= _PLAUSIBLE:
        return True
    return per_second != 1_000 and abs(value - arrived) <= _PLAUSIBLE
