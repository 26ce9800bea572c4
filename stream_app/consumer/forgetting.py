"""Decides after how long without records the state of a device is deleted."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import timedelta

from stream_app.errors import Problem
from stream_app.model.event import Event, Rate
from stream_app.settings import Settings

# A correction reads a device's earlier rows from the files of the two previous days and of twice the window.
_LEAST = timedelta(days=3)
_DAY_MS = 86_400_000
_DEFAULT = Settings("", "").forget_devices_after_days


def forget_after(settings: Settings, events: Iterable[Event]) -> int:
    """Return the time without records in milliseconds, 0 for never; the default grows with the needs of events."""
    days = settings.forget_devices_after_days
    if days == _DEFAULT:
        days = max([days, *(needs(event).days for event in events)])
    return _DAY_MS * days


def problems(settings: Settings, events: Iterable[Event]) -> list[Problem]:
    """Return a problem for each event type whose results depend on older rows than are kept."""
    days = settings.forget_devices_after_days
    if days in (0, _DEFAULT):
        return []
    needed = {event.name: needs(event).days for event in events}
    return [
        Problem(
            f"app.forget_devices_after_days = {days}: {name} depends on {least} days of a device's history",
            f"give at least {least}, or 0 to forget no device",
        )
        for name, least in needed.items()
        if days < least
    ]


def needs(event: Event) -> timedelta:
    """Return, in whole days, the longest history that the result of a row or its correction can depend on."""
    spans = [check.per for check in event.checks if isinstance(check, Rate)]
    if event.window is not None:
        spans.append(2 * event.window.size * event.window.step)
    longest = max(spans, default=timedelta(0)) + timedelta(days=1)
    return max(_LEAST, timedelta(days=math.ceil(longest / timedelta(days=1))))
