"""Measures detector throughput in records per CPU second; only ratios between detectors are asserted."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from itertools import cycle, islice
from time import process_time
from typing import Any

import numpy as np
import pytest
from river import anomaly, preprocessing

from anomaly.detector import Detector
from anomaly.nearest import NearestValue
from anomaly.river import RiverDetector, StandardDeviation
from anomaly.trees import HalfSpaceTrees

KEYS = [f"device {number}" for number in range(100)] * 5
BATCH = len(KEYS)


def river_trees() -> Any:
    return preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(seed=1)


DETECTORS: dict[str, Callable[[list[str]], Detector]] = {
    "NearestValue": NearestValue,
    "HalfSpaceTrees": lambda names: HalfSpaceTrees(names, seed=1),
    "StandardDeviation": StandardDeviation,
    "river's HalfSpaceTrees": lambda names: RiverDetector(river_trees, names, 0.95),
}


def records_per_second(detector: Detector, features: int, batches: int, batch: int = BATCH) -> float:
    X = np.random.default_rng(0).lognormal(size=(batches + 1, batch, features)).round(2)
    times = np.datetime64("2024-01-01", "s") + np.arange(batch)
    detector.process_many(KEYS[:batch], X[0], times)
    begin = process_time()
    for rows in X[1:]:
        detector.process_many(KEYS[:batch], rows, times)
    return batches * batch / (process_time() - begin)


@pytest.mark.parametrize("features", [1, 6])
def test_records_per_second(features: int) -> None:
    names = [f"feature {number}" for number in range(features)]
    print()
    found = {}
    for name, make in DETECTORS.items():
        slow = name.startswith("river")
        found[name] = records_per_second(make(names), features, 6 if slow else 100)
        single = records_per_second(make(names), features, 500 if slow else 3000, batch=1)
        print(f"{features} features, {name:24} {found[name]:12,.0f} in batches {single:12,.0f} one at a time")
    river = found["river's HalfSpaceTrees"]
    # Both are timed in the same process, so ratios are comparable where absolute times are not.
    assert found["HalfSpaceTrees"] > 20 * river
    assert found["NearestValue"] > 10 * river


SIX = ["a", "b", "c", "d", "e", "f"]


def grown(devices: int, rows: int) -> NearestValue:
    """Return a detector trained with `rows` rows for each of `devices` devices."""
    detector, rng = NearestValue(SIX), np.random.default_rng(1)
    keys = [f"device {number}" for number in range(devices)]
    for _ in range(rows):
        detector.process_many(keys, rng.lognormal(size=(devices, len(SIX))).round(2))
    return detector


@pytest.mark.parametrize("devices", [10, 100, 1_000, 10_000, 100_000])
def test_records_per_second_by_devices(devices: int) -> None:
    detector, rng = grown(devices, 100), np.random.default_rng(2)
    keys = [f"device {number}" for number in range(devices)]
    rng.shuffle(keys)
    around = cycle(keys)
    batches = [list(islice(around, BATCH)) for _ in range(200)]
    X = rng.lognormal(size=(len(batches), BATCH, len(SIX))).round(2)
    times = np.datetime64("2024-01-01", "s") + np.arange(BATCH)
    best = 0.0
    for _ in range(3):
        begin = process_time()
        for batch, rows in zip(batches, X, strict=True):
            detector.process_many(batch, rows, times)
        best = max(best, len(batches) * BATCH / (process_time() - begin))
    print(f"\n{devices:7,} devices of 6 features: {best:12,.0f} records/s in batches of {BATCH}")


def test_snapshot_and_restore_of_a_hundred_thousand_devices() -> None:
    devices = 100_000
    detector, restored = grown(devices, 100), NearestValue(SIX)
    marks = [process_time()]
    state = detector.snapshot()
    marks.append(process_time())
    restored.restore(state)
    marks.append(process_time())
    snapshot, restore = np.diff(marks)
    small = len(zlib.compress(state[: 2**24], 1)) / 2**24
    print(
        f"\n{devices:,} devices of 6 features, {detector.bytes_per_key} bytes per device: snapshot {snapshot:.2f} s, "
        f"restore {restore:.2f} s, {len(state) / devices:,.0f} bytes per device, {small:.0%} of that with zlib"
    )
    more = [f"new device {number}" for number in range(1_000)]
    begin = process_time()
    restored.process_many(more, np.ones((len(more), len(SIX))))
    print(f"{len(more):,} further ones, which evict as many: {process_time() - begin:.2f} s")
    assert len(state) < devices * (detector.bytes_per_key + 40)
