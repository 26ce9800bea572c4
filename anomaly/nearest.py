"""A detector of what a device never did before: how far a value is from the nearest one ever seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import timedelta
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from river import base

from anomaly.alerting import Explanation, Judgement, explain
from anomaly.detector import FloatMatrix, FloatVector, Keep, Times
from anomaly.kernels import nearest_value as kernel
from anomaly.keyed_state import nearest_packed as packing
from anomaly.keyed_state import nearest_state as layout
from anomaly.keyed_state.container import Buffer, Pieces, refusing, sealed, unseal_parts
from anomaly.keyed_state.indexed_keys import Numbered
from anomaly.keyed_state.table import Arrays, Table, distinct, keys_in
from anomaly.rows import checked
from anomaly.single_row import OneDevice


def at_most_one_alert(
    every: timedelta, reading_every: timedelta, **parameters: Any
) -> Callable[[Sequence[str]], NearestValue]:
    """What an Event's `detector` takes: at most about one alert of a device in `every`, whatever its data are like.

    `reading_every` is how far apart its readings are: `at_most_one_alert(timedelta(weeks=1), timedelta(hours=1))`.
    A new device is silent for as long, while its own alert level is found. `parameters` are those of NearestValue.
    """
    rows = every / reading_every
    given = {"rows_per_alert": rows, "warm_up": max(100, math.ceil(rows)), **parameters}

    def detector(features: Sequence[str]) -> NearestValue:
        return NearestValue(features, **given)

    detector.__name__ = NearestValue.__name__
    return detector


class NearestValue(OneDevice, base.AnomalyDetector):
    """Distance of a value, of its moving average and of its departure from the hour's usual to the nearest seen.

    Each is divided by what is usual for the device (range, step from value to value, distance to the nearest), so
    that no unit and no offset matters; a feature's score is the power mean (mean √s)² of the three, a row's score
    (Σ √s)² over its features, divided by their number. The hour counts where `process_many` is given `times`.

    Alerts (scores ≥ `threshold`) are kept to about one in `rows_per_alert` rows of a key: each raises what it
    takes to alert by the factor exp(`step_up`), and that many rows take it back. The default is a week of
    five-minute readings; hourly ones would be 168. After an alert the key is silent for `cooldown` rows. A score is
    0 in a key's first `warm_up` rows, while its level is learnt.

    `capacity` values are kept of each channel, `memory` is how many values averages look back, `window` how many
    the moving average does. At most `max_keys` keys are held (`bytes_per_key` each); one more takes the place of
    the one that was silent for longest. Scores do not change when values are scaled, nor (up to rounding) when
    they are shifted. Nothing is drawn at random.
    """

    scale_free = (1e-15, 1e23)  # values between these sizes, and 0

    def __init__(
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
            raise ValueError("capacity is at least 3, window, memory and rows_per_alert are above 0")
        if not threshold > 0:
            raise ValueError(f"threshold = {threshold}: it must be above 0")
        self.features = tuple(features) if features else None  # river takes an empty tuple for a class
        self.threshold = threshold
        self.rows_per_alert, self.cooldown, self.warm_up = rows_per_alert, cooldown, warm_up
        self.step_up, self.capacity, self.memory = step_up, capacity, memory
        self.window, self.max_keys = window, max_keys
        self._names: tuple[str, ...] = self.features or ()
        self._table = Table(max_keys, layout.layout(len(self._names), capacity))

    @property
    def bytes_per_key(self) -> int:
        """What the state of one key takes; its name comes on top, about 150 bytes."""
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
        """Score then learn n rows in order. `X` is (n, features), NaN where missing; returns (n,) scores."""
        return self.judge_many(keys, X, times).scores

    def judge_many(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> Judgement:
        """`process_many`, with what stood out in each row. Raises ValueError when shapes do not fit."""
        values, hours = checked(X, len(keys), len(self._names)), _hours(times, len(keys))
        places, fresh = self._table.take(keys)
        return self._run(self._table.arrays, places, fresh, values, hours)

    def expect(self, keys: Numbered) -> None:
        """Rows of these keys will come with these numbers: what is held of them is looked up now."""
        self._table.expect(keys)

    def forget_keys(self, keys: Collection[str]) -> None:
        """From now on these keys are as if they had never been seen."""
        self._table.forget(keys)

    def score_rows(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> FloatVector:
        """What each row would score if it came next, by itself; nothing is learnt."""
        return self.judge_rows(keys, X, times).scores

    def judge_rows(self, keys: Sequence[str], X: FloatMatrix, times: Times | None = None) -> Judgement:
        """`score_rows`, with what would stand out in each row."""
        values, hours = checked(X, len(keys), len(self._names)), _hours(times, len(keys))
        places = self._table.find(keys)
        return self._run(self._table.copied(places), np.arange(len(keys)), places < 0, values, hours)

    def alert_levels(self, keys: Sequence[str]) -> FloatVector:
        """(n,) what a score must reach, before the key's own alerts are taken into account, to alert now."""
        return self.threshold * np.maximum(1.0, self._of(keys, layout.LEVEL))

    def warming_up(self, keys: Sequence[str]) -> NDArray[np.bool_]:
        """(n,) whether a key's next row scores 0 because too little is known of it."""
        return self._of(keys, layout.ROWS) < self.warm_up

    def _of(self, keys: Sequence[str], what: int) -> FloatVector:
        places, held = self._table.find(keys), self._table["key"]
        return np.array([held[place, what] if place >= 0 else 0.0 for place in places.tolist()])

    def explain(self, judgement: Judgement, row: int) -> Explanation | None:
        """Why a row of `judge_many` scored what it did, None where nothing was compared."""
        return explain(judgement, row, self._names, self.threshold)

    def _run(
        self,
        arrays: Arrays,
        places: NDArray[np.intp],
        fresh: NDArray[np.bool_],
        values: FloatMatrix,
        hours: NDArray[np.int64],
    ) -> Judgement:
        scores, why = np.zeros(len(values)), np.full((len(values), layout.WHY), -1.0)
        state = layout.State(**arrays)
        judge = kernel.all_usual_rows if self.capacity == kernel.USUAL else kernel.all_rows
        judge(state, places, fresh, values, hours, self._rules(), scores, why)
        feature, channel = why[:, : layout.OBSERVED].T.astype(np.int64)
        return Judgement(scores, feature, channel, *why[:, layout.OBSERVED :].T)

    def _learn_names(self, names: Sequence[str]) -> None:
        """Make room for features that were not declared; they begin as never seen."""
        new = sorted(set(names).difference(self._names))
        if new:
            old = self._names
            self._names = (*old, *new)
            self._table.replace(layout.of_features(self._table.arrays, old, self._names))

    def _kind(self, version: int = 3) -> str:
        return f"nearest value {version}, {self.capacity} of a channel"

    def snapshot(self) -> bytes:
        """The state of every key, the longest silent first; the same states give the same bytes."""
        return self.pieces().joined()

    def pieces(self) -> Pieces:
        """`snapshot` piece by piece; to be used up before another row is taken."""
        order = self._table.order()
        begin = [msgspec.msgpack.encode(self._names), self._table.head(order)]
        lengths, blocks = packing.packed(self._table.arrays, order)
        return sealed(self._kind(), [*map(len, begin), *lengths], chain(begin, blocks))

    def restore(self, state: Buffer, keep: Keep = lambda _key: True) -> None:
        """Add the keys of a snapshot for which `keep(key)` holds; a key that is held already is replaced.

        Features go by name: one that the snapshot does not know begins anew. Where there are more than `max_keys`,
        those seen last stay. A snapshot of another kind of detector is passed over. Raises StateError when it is
        damaged.
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
            places, kept = self._table.load(head, keep, keys)
            self._take_over(stored, names, places, kept)

    def _take_over(
        self,
        blocks: Iterable[tuple[int, Arrays]],
        names: Sequence[str],
        places: NDArray[np.intp],
        kept: NDArray[np.intp],
    ) -> None:
        """Copy stored states into the table: of the rows `kept`, in order, to their places."""
        for first, stored in blocks:
            begin, end = np.searchsorted(kept, (first, first + len(stored["key"])))
            rows, to = kept[begin:end] - first, places[begin:end]
            for name, array in layout.of_features(stored, names, self._names).items():
                self._table[name][to] = array[rows]


def _hours(times: Times | None, rows: int) -> NDArray[np.int64]:
    """The hour of the day of each row (UTC), -1 where its time is unknown."""
    if times is None:
        return np.full(rows, -1, np.int64)
    hours = times.astype("datetime64[h]")
    return np.where(np.isnat(hours), -1, hours.astype(np.int64) % layout.HOURS)
