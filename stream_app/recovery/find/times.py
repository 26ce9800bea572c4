"""Parses times and durations of the command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from stream_app.errors import ConfigError, Problem

_AGO = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_HINT = "write 90m, 24h, 7d, 2026-01-31, 2026-01-31T08, 2026-01-31T08:30:00+01:00, or all"


def parse_time(text: str, now: datetime) -> datetime | None:
    """Return a time in UTC: `24h` is 24 hours before `now`, `all` is None.

    Any other text is an ISO 8601 time, in UTC unless it has an offset. Raises ConfigError.
    """
    if text == "all":
        return None
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ConfigError([Problem(f"{text!r} is not a time", _HINT)]) from error


def parse_duration(text: str) -> timedelta:
    """Return a duration such as 300s, 5m, 1h, 2d or 1w. Raises ConfigError."""
    found = _AGO.fullmatch(text.strip())
    if found is None:
        raise ConfigError([Problem(f"{text!r} is not a duration", "write 300s, 5m, 1h or 2d")])
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def parse_hour(text: str, now: datetime) -> tuple[datetime, datetime]:
    """Return the start and the end of the full hour that contains a time. Raises ConfigError."""
    at = parse_time(text, now)
    if at is None:
        raise ConfigError([Problem("'all' is not an hour", _HINT)])
    begin = at.replace(minute=0, second=0, microsecond=0)
    return begin, begin + timedelta(hours=1)
