"""Events with every shipped detector, their records, and a version 2 snapshot written by earlier code.

`tests/data/state-v2.snapshot` was written at commit f21a9d9 after `process` of `records(0, FIRST)`, with four IDs
kept for each device. It must never be regenerated.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from river import anomaly, preprocessing

from anomaly.nearest import NearestValue
from anomaly.river import StandardDeviation, with_river
from anomaly.trees import HalfSpaceTrees
from stream_app.model.event import Event
from stream_app.model.record import Record
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.testing import record
from tests import samples

VERSION_2 = Path(__file__).parent / "data" / "state-v2.snapshot"
FIRST, SEEN_IDS = 600, 4


def _event(name: str, detector: Any) -> Event:
    return replace(samples.STEP, name=name, features=("value", "level"), detector=detector)


EVENTS = {
    event.name: event
    for event in (
        samples.READING,
        samples.STEP,
        _event("nearest", lambda names: NearestValue(names, capacity=8, warm_up=5, cooldown=2)),
        _event("deviation", lambda names: StandardDeviation(names, warm_up=3)),
        _event("trees", lambda names: HalfSpaceTrees(names, n_trees=2, height=3, window_size=4)),
        _event(
            "river",
            with_river(
                lambda: (
                    preprocessing.MinMaxScaler()
                    | anomaly.HalfSpaceTrees(n_trees=2, height=3, window_size=4, seed=7)
                ),
                threshold=0.9,
            ),
        ),
    )
}


def registry() -> Registry:
    """Return a registry of all these event types."""
    return Registry.of(EVENTS.values(), {name: [samples.schema(name)] for name in EVENTS})


def new_state() -> ShardState:
    """Return an empty state."""
    return ShardState(EVENTS, SEEN_IDS)


def records(first: int, last: int) -> list[Record]:
    """Return the records with the numbers `first` to `last` (exclusive) of one shard; deterministic."""
    return [_record(number) for number in range(first, last)]


def _record(number: int) -> Record:
    rng = random.Random(number)
    device = f"device {rng.randint(0, 9)}"
    fields = {
        "id": str(rng.randint(0, 60)),
        "device": device,
        "time": samples.START + number // 20 * samples.HOUR,
        "value": rng.choice((None, round(rng.uniform(0, 99), 1))),
        "level": rng.choice((None, rng.randint(0, 1_000))),
        "note": rng.choice(samples.NOTES),
    }
    event = sorted(EVENTS)[rng.randrange(len(EVENTS))]
    return record(
        samples.as_json(event, fields), number + 1, key=device, arrived=samples.START + number * 1_000
    )
