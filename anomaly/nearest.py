"""A detector of unseen behaviour: the distance of a value to the nearest one ever seen of the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import timedelta
from itertools import chain
from typing import TypedDict, Unpack

import msgspec
import numpy as np
from numpy.typing import NDArray
from river import base

from anomaly.alerting import Assessment, Explanation, explain
from anomaly.detector import FloatMatrix, FloatVector, Keep, Times
from anomaly.keyed_state.container import Buffer, Pieces, refusing, sealed, unseal_parts
from anomaly.keyed_state.indexed_keys import Numbered
from anomaly.keyed_state.table import Arrays, Table, distinct, keys_in
from anomaly.nearest_value import kernel
from anomaly.nearest_value import packed_state as packing
from anomaly.nearest_value import state as layout
from anomaly.rows import checked
from anomaly.single_row import OneDevice


class Parameters(TypedDict, total=False):
    """The parameters of `NearestValue`, except for the features."""

    threshold: float
    rows_per_alert: float
    cooldown: int
    warm_up: int
    step_up: float
    capacity: int
    memory: int
    window: int
    max_keys: int


def at_most_one_alert(
    every: timedelta, reading_every: timedelta, **parameters: Unpack[Parameters]
) -> Callable[[Sequence[str]], NearestValue]:
    """Return a detector factory that limits alerts to about one per device in `every`.

    `reading_every` is the interval between readings of a device:
    `at_most_one_alert(timedelta(weeks=1), timedelta(hours=1))`. A new device raises no alerts during the first
    `every`, while its alert level is calibrated. `parameters` are those of `NearestValue`.
    """
    rows = every / reading_every
    given: Parameters = {"rows_per_alert": rows, "warm_up": max(100, math.ceil(rows)), **parameters}

    def detector(features: Sequence[str]) -> NearestValue:
        return NearestValue(features, **given)

    detector.__name__ = NearestValue.__name__
    return detector


class NearestValue(OneDevice, base.AnomalyDetector):
    """Distance to the nearest value seen, for the value, its moving average and its deviation from the hour's usual.

    Each of these three channels is divided by what is usual for the device (range, step between values, distance to
    the nearest value), so that scores are independent of unit and offset. The score of a feature is the power mean
    (mean √s)² of its channels, the score of a row is (Σ √s)² over its features divided by their number. The channel
    of the hour is used if `process_many` receives `times`.

    Alerts (scores ≥ `threshold`) are limited to about one per `rows_per_alert` rows of a key: each alert raises the
    alert level of the key by the factor exp(`step_up`), and that many rows lower it again. The default corresponds to
    a week of five-minute readings; for hourly readings it would be 168. After an alert the key is silent for
    `cooldown` rows. In the first `warm_up` rows of a key the score is 0, while its level is calibrated.

    `capacity` is the number of values kept per channel, `memory` the number of values that means look back, `window`
    that of the moving average. At most `max_keys` keys are kept (`bytes_per_key` each); another one replaces the key
    that has been silent longest. Scores are invariant to scaling and, up to rounding, to shifts. The detector is
    deterministic.
    """

    scale_free = (1e-15, 1e23)  # for 0 and for magnitudes in this range

    def __init__(  # noqa: PLR0913, PLR0917 - river's models have plain parameters
        self,
        features: Sequence[str] | None = None,
        threshold: float = 0.45,
        rows_per_alert: float = 2016,
        cooldown: int = 50,
        warm_up: int = 100,
        step_up: float = 0.2,
        capacity: int = 64,
        memory: int = 5000,
        window: int = 10,
        max_keys: int = 100_000,
    ) -> None:
        if capacity < 3 or window < 1 or memory < 1 or not rows_per_alert > 0 or not step_up >= 0:
            raise ValueError("capacity must be at least 3; window, memory and rows_per_alert above 0")
        if not threshold > 0:
            raise ValueError(f"threshold is {threshold} (expected a number above 0)")
        self.features = tuple(features) if features else None  # river would treat an empty tuple as a class
        self.threshold = threshold
        self.rows_per_alert, self.cooldown, self.warm_up = rows_per_alert, cooldown, warm_up
        self.step_up, self.capacity, self.memory = step_up, capacity, memory
        self.window, self.max_keys = window, max_keys
        self._names: tuple[str, ...] = self.features or ()
        self._table = Table(max_keys, layout.layout(len(self._names), capacity))

    @property
    def bytes_per_key(self) -> int:
        """Memory of the state of one key in bytes, without its name (about 150 bytes)."""
        return self._table.bytes_per_key

    def _rules(self) -> layout.Rules:
        return layout.Rules(
            float(self.threshold),
            float(self.cooldown),
            float(self.warm_up),
            math.exp(self.step_up),
            math.exp(-self.step_up / self.rows_per_alert),
            float(self.memory),
            float(self.window),
        )

    def process_many(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector:
        """Score and then learn n rows in order. `X` is (n, features), NaN where missing; returns (n,) scores."""
        return self.assess_many(keys, X, times).scores

    def assess_many(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> Assessment:
        """Score and learn as `process_many` does, and return what contributed most. Raises ValueError on shapes."""
        values, hours = checked(X, len(keys), len(self._names)), _hours(times, len(keys))
        slots, fresh = self._table.take(keys)
        return self._run(self._table.arrays, slots, fresh, values, hours)

    def expect(self, keys: Numbered) -> None:
        """Look up these keys now, so that rows with their numbers need no lookup later."""
        self._table.expect(keys)

    def forget_keys(self, keys: Collection[str]) -> None:
        """Forget the state of these keys."""
        self._table.forget(keys)

    def score_rows(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector:
        """Score each row as if it were the next one of its key, without learning it."""
        return self.assess_rows(keys, X, times).scores

    def assess_rows(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> Assessment:
        """Score as `score_rows` does, and return what contributes most to each score."""
        values, hours = checked(X, len(keys), len(self._names)), _hours(times, len(keys))
        slots = self._table.find(keys)
        return self._run(self._table.copied(slots), np.arange(len(keys)), slots < 0, values, hours)

    def explain(self, assessment: Assessment, row: int) -> Explanation | None:
        """Return the explanation of a row of `assess_many`, None if nothing was compared."""
        return explain(assessment, row, self._names, self.threshold)

    def _run(
        self,
        arrays: Arrays,
        slots: NDArray[np.intp],
        fresh: NDArray[np.bool_],
        values: FloatMatrix,
        hours: NDArray[np.int64],
    ) -> Assessment:
        scores, why = np.zeros(len(values)), np.full((len(values), layout.WHY), -1.0)
        state = layout.State(**arrays)
        run = kernel.all_usual_rows if self.capacity == kernel.USUAL else kernel.all_rows
        run(state, slots, fresh, values, hours, self._rules(), scores, why)
        feature, channel = why[:, : layout.OBSERVED].T.astype(np.int64)
        return Assessment(scores, feature, channel, *why[:, layout.OBSERVED :].T)

    def _learn_names(self, names: Sequence[str]) -> None:
        """Add features that were not declared, without any history."""
        new = sorted(set(names).difference(self._names))
        if new:
            old = self._names
            self._names = (*old, *new)
            self._table.replace(layout.of_features(self._table.arrays, old, self._names))

    def _kind(self, version: int = 3) -> str:
        return f"nearest value {version}, {self.capacity} of a channel"

    def snapshot(self) -> bytes:
        """Serialize the state of every key, least recently seen first; equal states give equal bytes."""
        return self.pieces().joined()

    def pieces(self) -> Pieces:
        """Serialize piece by piece; the iterator must be exhausted before the next row is processed."""
        order = self._table.order()
        begin = [msgspec.msgpack.encode(self._names), self._table.head(order)]
        lengths, blocks = packing.packed(self._table.arrays, order)
        return sealed(self._kind(), [*map(len, begin), *lengths], chain(begin, blocks))

    def restore(self, state: Buffer, keep: Keep = lambda _key: True) -> None:
        """Load the keys of a snapshot for which `keep(key)` is true; existing keys are replaced.

        Features are matched by name; one that the snapshot lacks starts without history. If there are more than
        `max_keys` keys, the most recently seen ones are kept. A snapshot of another kind of detector is ignored.
        Raises StateError if the snapshot is damaged.
        """
        parts, unpacked = unseal_parts(self._kind(), state), packing.unpacked
        if parts is None:
            parts, unpacked = unseal_parts(self._kind(2), state), packing.unpacked_2
        if parts is None:
            return
        with refusing():
            first, head, *blocks = parts
            names = distinct(msgspec.msgpack.decode(first, type=tuple[str, ...]))
            keys = keys_in(head)
            stored = unpacked(blocks, keys, len(names), self.capacity)
            if not self.features:
                self._learn_names(names)
            slots, kept = self._table.load(head, keep, keys)
            self._take_over(stored, names, slots, kept)

    def _take_over(
        self,
        blocks: Iterable[tuple[int, Arrays]],
        names: Sequence[str],
        slots: NDArray[np.intp],
        kept: NDArray[np.intp],
    ) -> None:
        """Copy the stored states of the rows `kept`, in order, to their slots in the table."""
        for first, stored in blocks:
            begin, end = np.searchsorted(kept, (first, first + len(stored["key"])))
            rows, to = kept[begin:end] - first, slots[begin:end]
            for name, array in layout.of_features(stored, names, self._names).items():
                self._table[name][to] = array[rows]


def _hours(times: Times | None, rows: int) -> NDArray[np.int64]:
    """Return the hour of the day of each row (UTC), -1 where the time is unknown."""
    if times is None:
        return np.full(rows, -1, np.int64)
    hours = times.astype("datetime64[h]")
    return np.where(np.isnat(hours), -1, hours.astype(np.int64) % layout.HOURS)
