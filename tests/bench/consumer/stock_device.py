"""Device state of the stock consumer, one object per device: ids, hours, checks and river's model."""

from __future__ import annotations

import math
from typing import Any

from river import anomaly, preprocessing

from stream_app.events.air_quality.event import CHECKS, EVENT
from stream_app.model.event import Rate, Stuck

_WINDOW = ("pm25", "pm10", "o3", "co")
_RATES = [check for check in CHECKS if isinstance(check, Rate)]
_STUCKS = [check for check in CHECKS if isinstance(check, Stuck)]
_HOUR = 3_600_000
THRESHOLD = 0.95


class Device:
    """The state of one device."""

    def __init__(self, seen_ids: int = 256) -> None:
        self._limit = seen_ids
        self._count = 0
        self._ids: dict[str, int] = {}
        self._hours: dict[int, tuple[float, ...]] = {}
        self._rates: dict[str, tuple[int, float]] = {}
        self._stuck: dict[str, tuple[float, int]] = {}
        self._model = preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(seed=1)

    def is_repeat(self, event_id: str) -> bool:
        """Return whether the id was accepted among the last events; counts this event."""
        self._count += 1
        at = self._ids.get(event_id)
        return at is not None and self._count - at <= self._limit

    def accept(self, event_id: str) -> None:
        """Record an accepted id."""
        self._ids.pop(event_id, None)
        self._ids[event_id] = self._count
        while self._ids[oldest := next(iter(self._ids))] <= self._count - self._limit:
            del self._ids[oldest]

    def windows(self, row: dict[str, Any], ms: int) -> dict[str, list[float]]:
        """Return the last twelve hours of each field, latest first."""
        step = ms // _HOUR
        hours = self._hours
        hours[step] = tuple(math.nan if row[name] is None else row[name] for name in _WINDOW)
        if len(hours) > 24:
            del hours[min(hours)]
        nothing = (math.nan,) * len(_WINDOW)
        rows = [hours.get(step - back, nothing) for back in range(12)]
        return {name: [values[at] for values in rows] for at, name in enumerate(_WINDOW)}

    def flag(self, row: dict[str, Any], ms: int) -> str | None:
        """Return the name of the first failed check, or None; updates the state."""
        found: str | None = None
        for rate in _RATES:
            value = row[rate.field]
            before = self._rates.get(rate.field)
            if value is None or (before is not None and ms <= before[0]):
                continue
            hours = 1.0 if before is None else (ms - before[0]) / _HOUR
            if before is not None and abs(value - before[1]) > rate.most * max(1.0, hours):
                found = found or rate.name
            else:
                self._rates[rate.field] = ms, value
        for stuck in _STUCKS:
            value = row[stuck.field]
            if value is None:
                continue
            same, run = self._stuck.get(stuck.field, (None, 0))
            run = run + 1 if value == same else 1
            self._stuck[stuck.field] = value, run
            if run >= stuck.times and value not in stuck.besides:
                found = found or stuck.name
        return found

    def score(self, row: dict[str, Any]) -> float:
        """Return the score of a row, then learn it."""
        features = {name: row[name] for name in EVENT.features if row[name] is not None}
        if not features:
            return 0.0
        score: float = self._model.score_one(features)
        self._model.learn_one(features)
        return score
