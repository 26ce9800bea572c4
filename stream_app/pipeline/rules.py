"""Checks that flag a row before the model sees it: range, rate of change, stuck sensor, the cheap ones first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.detector import Detector
from anomaly.judgement import Explaining
from stream_app.event import Check, Event, Range, Rate, Stuck
from stream_app.pipeline.memory import Keep
from stream_app.pipeline.score import EXPLANATION, score
from stream_app.record import Batch, IntVector, Mask

FLAG = "flag"
_COST: Mapping[type[Any], int] = {Range: 0, Rate: 1, Stuck: 2}
_STALE = np.iinfo(np.int64).min
_FIRST_ROOM = 16
_Matrix = NDArray[np.float64]
_Flags = NDArray[np.object_]


def judged(batch: Batch, flags: _Flags, event: Event, detector: Detector | None) -> Batch:
    """Add `flag`, and what the model says of the rows that have none: a broken sensor teaches it nothing.

    A flagged row is an anomaly with the score NaN.
    """
    flagged = np.array([flag is not None for flag in flags], dtype=np.bool_)
    marked = batch.with_columns({FLAG: flags})
    if not len(marked):
        return marked
    if detector is None:
        return marked.with_columns({"anomaly": flagged})
    if not flagged.any():
        return score(marked, event, detector)
    scores, anomaly = np.full(len(marked), np.nan), flagged.copy()
    clean = score(marked.take(~flagged), event, detector)
    if len(clean):
        scores[~flagged], anomaly[~flagged] = clean["score"], clean["anomaly"]
    columns: dict[str, NDArray[Any]] = {"score": scores, "anomaly": anomaly}
    if isinstance(detector, Explaining):
        columns[EXPLANATION] = np.full(len(marked), None, dtype=object)
        if len(clean):
            columns[EXPLANATION][~flagged] = clean[EXPLANATION]
    return marked.with_columns(columns)


class Checks:
    """An event's checks and what they remember of each device.

    A row is judged by its device's rows before it, in order, so that no split of the rows changes a flag.
    """

    def __init__(self, checks: Sequence[Check]) -> None:
        self._checks = sorted(checks, key=lambda check: _COST[type(check)])
        self._ranges = [check for check in self._checks if isinstance(check, Range)]
        self._rates = [check for check in self._checks if isinstance(check, Rate)]
        self._stucks = [check for check in self._checks if isinstance(check, Stuck)]
        self._names = np.array([*(check.name for check in self._checks), None], dtype=object)
        self._most = np.array([rate.most for rate in self._rates])
        self._per = np.array([rate.per / timedelta(milliseconds=1) for rate in self._rates])
        self._times = np.array([stuck.times for stuck in self._stucks], dtype=np.int64)
        # [check, rate]: where the check trips, the value is none to compare later ones with.
        spoils = [not isinstance(c, Stuck) and c.field == r.field for c in self._checks for r in self._rates]
        self._spoils = np.array(spoils, dtype=np.bool_).reshape(len(self._checks), len(self._rates))
        self._index: dict[str, int] = {}
        self._at = np.full((_FIRST_ROOM, len(self._rates)), _STALE, dtype=np.int64)
        self._last = np.full((_FIRST_ROOM, len(self._rates)), np.nan)
        self._same = np.full((_FIRST_ROOM, len(self._stucks)), np.nan)
        self._run = np.zeros((_FIRST_ROOM, len(self._stucks)), dtype=np.int64)

    def mark(self, keys: NDArray[Any], batch: Batch) -> _Flags:
        """The name of the first check that each row trips, None where it trips none, shape (n,); and learn."""
        tripped = np.zeros((len(batch), len(self._checks)), dtype=np.bool_)
        for at, check in enumerate(self._ranges):
            value = _numbers(batch, check.field)
            tripped[:, at] = (value < check.low) | (value > check.high)
        if self._rates or self._stucks:
            slots = np.fromiter((self._device(key) for key in keys), dtype=np.int64, count=len(keys))
            moments = _table([_ticks(batch[rate.time]) for rate in self._rates], len(batch), np.int64)
            values = _table([_numbers(batch, c.field) for c in self._rates], len(batch), np.float64)
            steady = _table([_numbers(batch, c.field) for c in self._stucks], len(batch), np.float64)
            for rows in _rounds(slots):
                self._rate(tripped, rows, slots[rows], moments[rows], values[rows])
                self._stuck(tripped, rows, slots[rows], steady[rows])
        first = np.where(tripped.any(axis=1), tripped.argmax(axis=1), len(self._checks))
        flags: _Flags = self._names[first]
        return flags

    def _rate(self, tripped: Mask, rows: IntVector, slots: IntVector, moments: IntVector, v: _Matrix) -> None:
        """Rows of distinct devices."""
        before, last = self._at[slots], self._last[slots]
        known = before != _STALE
        elapsed = np.where(known, moments - np.where(known, before, 0), 1)
        usable = (moments != _STALE) & (elapsed > 0) & ~np.isnan(v)
        with np.errstate(invalid="ignore"):  # infinity less infinity
            jump = np.abs(v - last) > self._most * np.maximum(1.0, elapsed / self._per)
        start = len(self._ranges)
        tripped[rows, start : start + len(self._rates)] = known & usable & jump
        spoilt = (tripped[rows][:, :, None] & self._spoils[None]).any(axis=1)
        learn = usable & ~spoilt
        self._at[slots] = np.where(learn, moments, before)
        self._last[slots] = np.where(learn, v, last)

    def _stuck(self, tripped: Mask, rows: IntVector, slots: IntVector, v: _Matrix) -> None:
        """Rows of distinct devices."""
        same, run = self._same[slots], self._run[slots]
        there = ~np.isnan(v)
        run = np.where(there, np.where(v == same, run + 1, 1), run)
        usual = np.zeros(v.shape, dtype=np.bool_)
        for at, check in enumerate(self._stucks):
            usual[:, at] = np.isin(v[:, at], check.besides)
        start = len(self._ranges) + len(self._rates)
        tripped[rows, start:] = there & (run >= self._times) & ~usual
        self._run[slots] = run
        self._same[slots] = np.where(there, v, same)

    def _device(self, key: str) -> int:
        found = self._index.get(key)
        if found is None:
            found = self._index[key] = len(self._index)
            if found == len(self._at):
                self._at = np.concatenate([self._at, np.full_like(self._at, _STALE)])
                self._last = np.concatenate([self._last, np.full_like(self._last, np.nan)])
                self._same = np.concatenate([self._same, np.full_like(self._same, np.nan)])
                self._run = np.concatenate([self._run, np.zeros_like(self._run)])
        return found

    def dump(self) -> Any:
        """Built-in types only."""
        tables = (self._at, self._last, self._same, self._run)
        devices = {key: [table[at].tolist() for table in tables] for key, at in self._index.items()}
        return {"rates": _identities(self._rates), "stucks": _identities(self._stucks), "devices": devices}

    def load(self, dumped: Any, keep: Keep) -> None:
        """Add the devices for which `keep` holds; a check that is declared otherwise than it was begins anew."""
        rates = _matching(_identities(self._rates), dumped["rates"])
        stucks = _matching(_identities(self._stucks), dumped["stucks"])
        for key, (at, last, same, run) in dumped["devices"].items():
            if keep(key):
                slot = self._device(key)
                for mine, stored in rates:
                    self._at[slot, mine], self._last[slot, mine] = at[stored], last[stored]
                for mine, stored in stucks:
                    self._same[slot, mine], self._run[slot, mine] = same[stored], run[stored]


def _identities(checks: Sequence[Check]) -> list[str]:
    return [repr(check) for check in checks]


def _matching(mine: Sequence[str], stored: Sequence[str]) -> list[tuple[int, int]]:
    return [(at, stored.index(name)) for at, name in enumerate(mine) if name in stored]


def _numbers(batch: Batch, name: str) -> NDArray[np.float64]:
    values: NDArray[np.float64] = batch[name].astype(np.float64)  # None becomes NaN
    return values


def _ticks(times: NDArray[Any]) -> IntVector:
    """Milliseconds since the epoch; NaT is the least number."""
    return times.astype("datetime64[ms]").view(np.int64)


def _table(columns: Sequence[NDArray[Any]], rows: int, kind: type[Any]) -> NDArray[Any]:
    return np.stack(columns, axis=1) if columns else np.zeros((rows, 0), dtype=kind)


def _rounds(slots: IntVector) -> Iterator[IntVector]:
    """Row numbers so cut that within a round no device comes twice, and each device's rows stay in order."""
    order = np.argsort(slots, kind="stable")
    ordered = slots[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(slots) else order
    lengths = np.diff(np.r_[starts, len(slots)])
    for number in range(int(lengths.max(initial=0))):
        yield order[starts[lengths > number] + number]
