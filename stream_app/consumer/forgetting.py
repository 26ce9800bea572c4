"""After how long a silence a device is forgotten, and how short that may be."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import timedelta

from stream_app.errors import Problem
from stream_app.model.event import Event, Rate
from stream_app.settings import Settings

# A correction looks for a device's earlier rows in the files of the two days before, and of twice the window.
_LEAST = timedelta(days=3)
_DAY_MS = 86_400_000
_DEFAULT = Settings("", "").forget_devices_after_days


def forget_after(settings: Settings, events: Iterable[Event]) -> int:
    """Return the silence in milliseconds, 0 for never. The default is longer where an event needs more."""
    days = settings.forget_devices_after_days
    if days == _DEFAULT:
        days = max([days, *(needs(event).days for event in events)])
    return _DAY_MS * days


def problems(settings: Settings, events: Iterable[Event]) -> list[Problem]:
    """Name each event type whose results depend on more of the past than is remembered."""
    days = settings.forget_devices_after_days
    if days in (0, _DEFAULT):
        return []
    needed = {event.name: needs(event).days for event in events}
    return [
        Problem(
            f"app.forget_devices_after_days = {days}: {name} needs {least} days of its devices' past",
            f"give at least {least}, or 0 to forget no device",
        )
        for name, least in needed.items()
        if days < least
    ]


def needs(event: Event) -> timedelta:
    """Return how much of a device's past a row's result, or its correction, can depend on; in whole days."""
    spans = [check.per for check in event.checks if isinstance(check, Rate)]
    if event.window is not None:
        spans.append(2 * event.window.size * event.window.step)
    longest = max(spans, default=timedelta(0)) + timedelta(days=1)
    return max(_LEAST, timedelta(days=math.ceil(longest / timedelta(days=1))))
