"""Generates parcel journeys from a seed, so that the second event type needs no data file."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random

from stream_app.ingest.files import Row

START = datetime(2016, 12, 1, tzinfo=UTC)
BETWEEN = timedelta(minutes=6)
_DEPOTS = ("Beijing", "Jinan", "Nanjing", "Shanghai", "Tianjin", "Wuhan", "Xuzhou", "Zhengzhou")


def journeys(count: int = 1_000, seed: int = 501) -> Iterator[Row]:
    """Generate the events of `count` parcels, ordered by time, then parcel.

    The events of a parcel are picked_up, in_transit at one to four depots, delivered and signed. Parcels are picked
    up every `BETWEEN`. About one in six is delivered after the time `promised`. Only parcels in transit are kept in
    memory.
    """
    rng = Random(seed)
    waiting: list[tuple[datetime, str, int, Row]] = []
    for number in range(count):
        picked_up = START + number * BETWEEN
        while waiting and waiting[0][0] < picked_up:
            yield heapq.heappop(waiting)[3]
        for at, event in enumerate(_journey(f"P{number:06d}", picked_up, rng)):
            heapq.heappush(waiting, (event["time"], event["parcel"], at, event))
    while waiting:
        yield heapq.heappop(waiting)[3]


def _journey(parcel: str, picked_up: datetime, rng: Random) -> list[Row]:
    depots = rng.sample(_DEPOTS, rng.randint(1, 4))
    stops = ["picked_up", *["in_transit"] * len(depots), "delivered", "signed"]
    places = [None, *depots, None, None]
    hours = [0.0, *(rng.uniform(3, 14) for _ in depots), rng.uniform(2, 10), rng.uniform(0.01, 5)]
    # The promised time depends on the number of depots, not on the actual durations.
    promised = picked_up + timedelta(hours=10 + 9 * len(depots))
    events: list[Row] = []
    time = picked_up
    for number, (status, depot, after) in enumerate(zip(stops, places, hours, strict=True)):
        time += timedelta(seconds=round(after * 3600))
        events.append(
            {
                "id": f"{parcel}/{number}",
                "parcel": parcel,
                "status": status,
                "time": time,
                "promised": promised,
                "depot": depot,
            }
        )
    return events
