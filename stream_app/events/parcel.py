"""Sample event type: the status of a parcel from pick-up to signature, one event per change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from stream_app.api import Batch, Event, Mask

# The allowed clock skew of a scanner into the future.
CLOCK_SKEW = np.timedelta64(5, "m")
SECOND = np.timedelta64(1, "s")

# The allowed next statuses. None is a new parcel, whose first status is picked_up.
NEXT: Mapping[str | None, frozenset[str]] = {
    None: frozenset({"picked_up"}),
    "picked_up": frozenset({"in_transit"}),
    "in_transit": frozenset({"in_transit", "delivered"}),
    "delivered": frozenset({"signed"}),
    "signed": frozenset(),
}


def verify(batch: Batch) -> dict[str, Mask]:
    """Return each rule's mask, true where the row satisfies it. A new parcel has no earlier time."""
    status, before = batch["status"], batch["previous.status"]
    earlier = batch["previous.time"]
    return {
        "status is picked_up, in_transit, delivered or signed": _mask(s in NEXT for s in status),
        "status may follow the parcel's last one": _mask(
            s in NEXT.get(b, ()) for s, b in zip(status, before, strict=True)
        ),
        "time is not before the parcel's last one": np.isnat(earlier) | (batch["time"] >= earlier),
        "time is at most 5 minutes after arrival": batch["time"] <= batch["arrived"] + CLOCK_SKEW,
    }


def calculate(batch: Batch) -> dict[str, NDArray[np.float64] | NDArray[np.int64]]:
    """Return the time in the previous status, and for deliveries the lateness against the promised time.

    `seconds_in_state` is NaN for a new parcel. `lateness` is in seconds, positive if late, and NaN without a promised
    time or for other events than deliveries. `late` is 1 if `lateness` is positive, otherwise 0.
    """
    time = batch["time"]
    delivered = batch["status"] == "delivered"
    lateness = np.where(delivered, (time - batch["promised"]) / SECOND, np.nan)
    return {
        "seconds_in_state": (time - batch["previous.time"]) / SECOND,
        "lateness": lateness,
        "late": (lateness > 0.0).astype(np.int64),
    }


def _mask(values: Iterable[bool]) -> Mask:
    return np.fromiter(values, dtype=np.bool_)


EVENT = Event(
    name="parcel",
    key="parcel",
    required=("id", "parcel", "status", "time"),
    verify=verify,
    calculate=calculate,
    id="id",
    sent="sent_at",
    previous=("status", "time"),
)
