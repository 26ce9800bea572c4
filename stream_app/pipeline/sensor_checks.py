"""Sensor checks flag rows before the detector sees them: range, rate of change, stuck sensor; cheap ones first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from anomaly.detector import AnyArray
from stream_app.model.event import Check, Range, Rate, Stuck
from stream_app.model.record import Batch, IntVector
from stream_app.pipeline.state import windows_kernel as kernel
from stream_app.pipeline.state.key_index import ensure_capacity
from stream_app.pipeline.state.stored_arrays import (
    SlotSelection,
    StoredPart,
    capacity_for,
    require,
    rows_as_bytes,
    stored_rows,
)

FLAG = "flag"
_COST: Mapping[type[Check], int] = {Range: 0, Rate: 1, Stuck: 2}
Flags = NDArray[np.object_]


def flag_rows(batch: Batch, slots: IntVector, checks: SensorChecks | None) -> Flags | None:
    """Return the first check that each row trips, shape (n,), or None if the event has no checks."""
    return None if checks is None else checks.flag(slots, batch)


class SensorChecks:
    """An event's checks and their state by device.

    The flag of a row depends only on the earlier rows of its device, in order: batch boundaries change no flag.
    """

    def __init__(self, checks: Sequence[Check]) -> None:
        self._checks = sorted(checks, key=lambda check: _COST[type(check)])
        self._ranges = [check for check in self._checks if isinstance(check, Range)]
        self._rates = [check for check in self._checks if isinstance(check, Rate)]
        self._stucks = [check for check in self._checks if isinstance(check, Stuck)]
        self._names = np.array([*(check.name for check in self._checks), None], dtype=object)
        self._max_changes = np.array([rate.most for rate in self._rates])
        self._per = np.array([rate.per / timedelta(milliseconds=1) for rate in self._rates])
        self._limits = np.array([stuck.times for stuck in self._stucks], dtype=np.int64)
        # [check, rate]: a value that trips the check is not compared with later values of the rate.
        spoils = [not isinstance(c, Stuck) and c.field == r.field for c in self._checks for r in self._rates]
        self._spoils = np.array(spoils, dtype=np.bool_).reshape(len(self._checks), len(self._rates))
        self._at = np.zeros((0, len(self._rates)), dtype=np.int64)
        self._last = np.zeros((0, len(self._rates)))
        self._same = np.zeros((0, len(self._stucks)))
        self._run = np.zeros((0, len(self._stucks)), dtype=np.int64)

    def _reserve(self, slots: int) -> None:
        self._at = ensure_capacity(self._at, slots, kernel.EMPTY)
        self._last = ensure_capacity(self._last, slots, np.nan)
        self._same = ensure_capacity(self._same, slots, np.nan)
        self._run = ensure_capacity(self._run, slots, 0)

    def flag(self, slots: IntVector, batch: Batch) -> Flags:
        """Return the name of the first check that each row trips (None: none), shape (n,), and update the state."""
        tripped = np.zeros((len(batch), len(self._checks)), dtype=np.bool_)
        self._reserve(int(slots.max(initial=-1)) + 1)
        for at, check in enumerate(self._ranges):
            value = _numbers(batch, check.field)
            tripped[:, at] = (value < check.low) | (value > check.high)
        first = len(self._ranges)
        if self._rates:
            times = np.stack([_ticks(batch[rate.time]) for rate in self._rates])
            values = np.stack([_numbers(batch, rate.field) for rate in self._rates])
            rules = (self._max_changes, self._per, self._spoils)
            kernel.rates(slots, times, values, *rules, self._at, self._last, first, tripped)
        if self._stucks:
            values = np.stack([_numbers(batch, stuck.field) for stuck in self._stucks])
            exempt = np.zeros(values.shape, dtype=np.bool_)
            for at, stuck in enumerate(self._stucks):
                if stuck.besides:
                    exempt[at] = np.isin(values[at], stuck.besides)
            first += len(self._rates)
            kernel.stuck(slots, values, exempt, self._limits, self._same, self._run, first, tripped)
        trips = np.where(tripped.any(axis=1), tripped.argmax(axis=1), len(self._checks))
        flags: Flags = self._names[trips]
        return flags

    def dump(self, selection: SlotSelection) -> dict[str, object]:
        """Return the state of the selected devices for `compress_state`; views, valid until the next update."""
        self._reserve(capacity_for(selection))
        tables = {"at": self._at, "last": self._last, "same": self._same, "run": self._run}
        return {
            "rates": _identities(self._rates),
            "stucks": _identities(self._stucks),
            **{name: rows_as_bytes(table, selection) for name, table in tables.items()},
        }

    def load(self, dumped: StoredPart, of: IntVector, to: IntVector, devices: int | None = None) -> None:
        """Add devices: row `of[i]` of a dump of `devices` devices becomes slot `to[i]`. Raises StateError.

        A check whose declaration has changed starts without state.
        """
        self._reserve(int(to.max(initial=-1)) + 1)
        rates, stucks = dumped["rates"], dumped["stucks"]

        def stored(name: str, kind: type[np.generic], checks: Sequence[str]) -> AnyArray:
            return stored_rows(dumped[name], kind, (len(checks),), of, devices)

        at, last = stored("at", np.int64, rates), stored("last", np.float64, rates)
        same, run = stored("same", np.float64, stucks), stored("run", np.int64, stucks)
        require(
            len(at) == len(last) and len(same) == len(run),
            "the arrays of the checks differ in their number of devices",
        )
        require(int(run.min(initial=0)) >= 0, "a negative number of repetitions")
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


def _ticks(times: AnyArray) -> IntVector:
    """Convert times to milliseconds since the epoch; NaT becomes the smallest integer."""
    return times.astype("datetime64[ms]").view(np.int64)
