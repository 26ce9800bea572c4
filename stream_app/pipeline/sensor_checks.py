"""Checks that flag a row before the model sees it: range, rate of change, stuck sensor, the cheap ones first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.alerting import Explaining
from anomaly.detector import Detector
from anomaly.keyed_state.indexed_keys import Numbered
from stream_app.model.event import Check, Event, Range, Rate, Stuck
from stream_app.model.record import Batch, IntVector, Mask
from stream_app.pipeline.score import EXPLANATION, score
from stream_app.pipeline.state import windows_kernel as kernel
from stream_app.pipeline.state.key_index import ensure_capacity
from stream_app.pipeline.state.stored_arrays import (
    SlotSelection,
    capacity_for,
    require,
    rows_as_bytes,
    stored_rows,
)

FLAG = "flag"
_COST: Mapping[type[Any], int] = {Range: 0, Rate: 1, Stuck: 2}
_Flags = NDArray[np.object_]


def flag_and_score(
    batch: Batch, flags: _Flags, event: Event, detector: Detector | None, keys: Numbered | None = None
) -> Batch:
    """Add `flag`, and what the model says of the rows that have none: a broken sensor teaches it nothing.

    A flagged row is an anomaly with the score NaN. `keys` as in `score`.
    """
    flagged: Mask = (flags != np.array(None)).astype(np.bool_)
    marked = batch.with_columns({FLAG: flags})
    if not len(marked):
        return marked
    if detector is None:
        return marked.with_columns({"anomaly": flagged})
    if not flagged.any():
        return score(marked, event, detector, keys)
    scores, anomaly = np.full(len(marked), np.nan), flagged.copy()
    needed = {event.key, "time", *event.features}.intersection(marked.columns)
    own = None if keys is None else keys.take(np.flatnonzero(~flagged))
    clean = score(marked.only(needed).take(~flagged), event, detector, own)
    if len(clean):
        scores[~flagged], anomaly[~flagged] = clean["score"], clean["anomaly"]
    columns: dict[str, NDArray[Any]] = {"score": scores, "anomaly": anomaly}
    if isinstance(detector, Explaining):
        columns[EXPLANATION] = np.full(len(marked), None, dtype=object)
        if len(clean):
            columns[EXPLANATION][~flagged] = clean[EXPLANATION]
    return marked.with_columns(columns)


class SensorChecks:
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
        self._at = np.zeros((0, len(self._rates)), dtype=np.int64)
        self._last = np.zeros((0, len(self._rates)))
        self._same = np.zeros((0, len(self._stucks)))
        self._run = np.zeros((0, len(self._stucks)), dtype=np.int64)

    def _reach(self, devices: int) -> None:
        self._at = ensure_capacity(self._at, devices, kernel.STALE)
        self._last = ensure_capacity(self._last, devices, np.nan)
        self._same = ensure_capacity(self._same, devices, np.nan)
        self._run = ensure_capacity(self._run, devices, 0)

    def mark(self, devices: IntVector, batch: Batch) -> _Flags:
        """The name of the first check that each row trips, None where it trips none, shape (n,); and learn."""
        tripped = np.zeros((len(batch), len(self._checks)), dtype=np.bool_)
        self._reach(int(devices.max(initial=-1)) + 1)
        for at, check in enumerate(self._ranges):
            value = _numbers(batch, check.field)
            tripped[:, at] = (value < check.low) | (value > check.high)
        first = len(self._ranges)
        if self._rates:
            moments = np.stack([_ticks(batch[rate.time]) for rate in self._rates])
            values = np.stack([_numbers(batch, rate.field) for rate in self._rates])
            rules = (self._most, self._per, self._spoils)
            kernel.rates(devices, moments, values, *rules, self._at, self._last, first, tripped)
        if self._stucks:
            values = np.stack([_numbers(batch, stuck.field) for stuck in self._stucks])
            usual = np.zeros(values.shape, dtype=np.bool_)
            for at, stuck in enumerate(self._stucks):
                if stuck.besides:
                    usual[at] = np.isin(values[at], stuck.besides)
            first += len(self._rates)
            kernel.stuck(devices, values, usual, self._times, self._same, self._run, first, tripped)
        trips = np.where(tripped.any(axis=1), tripped.argmax(axis=1), len(self._checks))
        flags: _Flags = self._names[trips]
        return flags

    def dump(self, devices: SlotSelection) -> Any:
        """What is known of these devices, as `packing.compressed` takes it; to be read at once."""
        self._reach(capacity_for(devices))
        tables = {"at": self._at, "last": self._last, "same": self._same, "run": self._run}
        return {
            "rates": _identities(self._rates),
            "stucks": _identities(self._stucks),
            **{name: rows_as_bytes(table, devices) for name, table in tables.items()},
        }

    def load(self, dumped: Any, of: IntVector, to: IntVector, devices: int | None = None) -> None:
        """Add devices, numbers `of` in the dump, of so many `devices`, `to` here. Raises StateError.

        A check that is declared otherwise begins anew.
        """
        self._reach(int(to.max(initial=-1)) + 1)
        rates, stucks = dumped["rates"], dumped["stucks"]

        def stored(name: str, kind: type[Any], checks: Sequence[str]) -> NDArray[Any]:
            return stored_rows(dumped[name], kind, (len(checks),), of, devices)

        at, last = stored("at", np.int64, rates), stored("last", np.float64, rates)
        same, run = stored("same", np.float64, stucks), stored("run", np.int64, stucks)
        require(
            len(at) == len(last) and len(same) == len(run), "the checks' arrays are not of the same devices"
        )
        require(int(run.min(initial=0)) >= 0, "a value was the same a negative number of times")
        for mine, stored_at in _matching(_identities(self._rates), rates):
            self._at[to, mine], self._last[to, mine] = at[of, stored_at], last[of, stored_at]
        for mine, stored_at in _matching(_identities(self._stucks), stucks):
            self._same[to, mine], self._run[to, mine] = same[of, stored_at], run[of, stored_at]


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
