"""Builds shard state for devices that have already sent a year of readings.

`python -m tests.bench.consumer.grown FOLDER DEVICES...` saves a snapshot at checkpoint SEQUENCE for each number of
devices, in a subfolder named after that number. The application's own code builds and saves the snapshots, so that a
child can start from one; sending all the records to a child instead would take an hour.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from anomaly.keyed_state.container import seal_parts, unseal_parts
from stream_app.consumer.snapshots import S3Snapshots
from stream_app.event_loading import load_registry
from stream_app.events.air_quality.event import EVENT
from stream_app.model.record import Batch
from stream_app.pipeline.state.event_state import EventState
from stream_app.pipeline.state.packing import unpack
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.settings import Settings
from tests.bench.consumer import data
from tests.bench.consumer.local_clients import Objects

SEQUENCE = "1"
# One year. A device's state reaches its full size after a month, but each reading changes it less and less for many
# more months. In the timed part, a small fleet advances by a year or more, a large fleet by an hour.
HOURS = 8_760
# Number of devices simulated for that year; each further device copies the state and the readings of one of them.
LIVED = 1_200
_SETTINGS = Settings("bench", "bench")
_BEGIN = np.datetime64(data.START.replace(tzinfo=None), "ms")


def grown(devices: int, year: bytes) -> ShardState:
    """Return the state of `devices` devices, given the snapshot of the simulated year."""
    whole, names = _new(), set(map(data.device, range(devices)))
    if devices <= LIVED:
        whole.restore(year, names.__contains__)
        return whole
    few, of, to = unpack(year)["events"][EVENT.name], whole[EVENT.name], np.arange(devices)
    of.devices.slots(map(data.device, range(devices)))
    for name, part in (("seen", of.recent_ids), ("windows", of.windows), ("checks", of.checks)):
        if part is not None:
            part.load(few[name], to % LIVED, to)
    if of.detector is not None:
        for first in range(0, devices, LIVED):
            of.detector.restore(_renamed(few["detector"], first), names.__contains__)
    return whole


def _renamed(sealed: bytes, first: int) -> bytes:
    """Return the detector state with its devices renumbered from `first`."""
    start = sealed.index(b"nearest value")
    kind = sealed[start : sealed.index(b"of a channel", start) + len(b"of a channel")].decode()
    parts = unseal_parts(kind, sealed)
    if parts is None:
        raise RuntimeError(f"the sealed detector state is not of kind {kind}")
    rows, keys, seen = msgspec.msgpack.decode(parts[1])
    at = {data.device(number): number for number in range(LIVED)}
    head = msgspec.msgpack.encode((rows, [data.device(first + at[key]) for key in keys], seen))
    return seal_parts(kind, [parts[0], head, *parts[2:]])


def _new() -> ShardState:
    return ShardState(
        {name: codec.event for name, codec in load_registry().codecs.items()}, _SETTINGS.seen_ids
    )


def lived(devices: int, hours: int) -> ShardState:
    """Return the state of devices after `hours` hourly readings, ending just before the first of `data.sent`."""
    state = _new()
    of, stations, rng = state[EVENT.name], _values(), np.random.default_rng(6)
    names = [data.device(at) for at in range(devices)]
    numbers, each = of.devices.slots(names), np.arange(devices)
    for hour in range(-hours, 0):
        winter, row = np.divmod(each // 12 * 37 + hour, stations.shape[1])
        factor = np.array([data.winter_factor(number) for number in winter.tolist()])
        values = (stations[each % 12, row] * factor[:, None]).round(1)
        _learn(of, names, numbers, values, _BEGIN + np.timedelta64(hour, "h"), rng)
    return state


def _values() -> NDArray[np.float64]:
    """Return shape (stations, hours, pollutants), NaN where missing, cut to the shortest station."""
    stations = data.stations()
    hours = min(map(len, stations))
    rows = [[[row[name] for name in data.POLLUTANTS] for row in station[:hours]] for station in stations]
    return np.array(rows, dtype=np.float64)


def _learn(
    of: EventState,
    names: list[str],
    numbers: NDArray[np.int64],
    values: NDArray[np.float64],
    time: np.datetime64,
    rng: np.random.Generator,
) -> None:
    """Add one reading of each device; random numbers stand in for the hashes of event ids."""
    missing = np.full(len(names), np.nan)
    columns: dict[str, NDArray[Any]] = dict.fromkeys(data.WEATHER, missing)
    columns |= dict(zip(data.POLLUTANTS, values.T, strict=True))
    batch = Batch(EVENT.name, {**columns, "time": np.full(len(names), time)}, np.arange(len(names)))
    of.recent_ids.check_and_add(numbers, rng.integers(1, 2**63, len(names)), np.ones(len(names), np.bool_))
    if of.windows is not None:
        of.windows.add(numbers, batch)
    if of.checks is not None:
        of.checks.flag(numbers, batch)
    if of.detector is not None:
        of.detector.process_many(names, values, batch["time"])


def main() -> None:
    """Save the snapshots, one folder per number of devices."""
    year = lived(LIVED, HOURS).snapshot()
    for devices in map(int, sys.argv[2:]):
        folder = Path(sys.argv[1]) / str(devices)
        folder.mkdir(parents=True, exist_ok=True)
        objects: Any = Objects(folder)
        store = S3Snapshots(objects, "bench", "bench")
        store.save(data.SHARD, SEQUENCE, grown(devices, year).snapshot())


if __name__ == "__main__":
    main()
