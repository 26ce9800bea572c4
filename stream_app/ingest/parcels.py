"""Journeys of parcels, made up from a seed: the second event type has data without a file."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

START = datetime(2016, 12, 1, tzinfo=UTC)
BETWEEN = timedelta(minutes=6)
_DEPOTS = ("Beijing", "Jinan", "Nanjing", "Shanghai", "Tianjin", "Wuhan", "Xuzhou", "Zhengzhou")


def journeys(count: int = 1_000, seed: int = 501) -> Iterator[dict[str, Any]]:
    """The events of `count` parcels in order of time, then parcel: picked_up, in_transit at one to four depots,
    delivered, signed. About one in six is delivered after the time `promised`.

    Parcels are picked up `BETWEEN` apart; those under way are all that is held in memory.
    """
    rng = Random(seed)
    waiting: list[tuple[datetime, str, int, dict[str, Any]]] = []
    for number in range(count):
        picked_up = START + number * BETWEEN
        while waiting and waiting[0][0] < picked_up:
            yield heapq.heappop(waiting)[3]
        for at, event in enumerate(_journey(f"P{number:06d}", picked_up, rng)):
            heapq.heappush(waiting, (event["time"], event["parcel"], at, event))
    while waiting:
        yield heapq.heappop(waiting)[3]


def _journey(parcel: str, picked_up: datetime, rng: Random) -> list[dict[str, Any]]:
    depots = rng.sample(_DEPOTS, rng.randint(1, 4))
    stops = ["picked_up", *["in_transit"] * len(depots), "delivered", "signed"]
    places = [None, *depots, None, None]
    hours = [0.0, *(rng.uniform(3, 14) for _ in depots), rng.uniform(2, 10), rng.uniform(0.01, 5)]
    # The promise knows the number of depots, not the road.
    promised = picked_up + timedelta(hours=10 + 9 * len(depots))
    events, time = [], picked_up
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
