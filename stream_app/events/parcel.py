"""A parcel's way from pick-up to signature, one event a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.api import Batch, Event, Mask

# How far a scanner's clock may run ahead of ours.
CLOCK_SKEW = np.timedelta64(5, "m")
SECOND = np.timedelta64(1, "s")

# What may follow each status. None is a parcel that was never seen: its way begins with the pick-up.
NEXT: Mapping[str | None, frozenset[str]] = {
    None: frozenset({"picked_up"}),
    "picked_up": frozenset({"in_transit"}),
    "in_transit": frozenset({"in_transit", "delivered"}),
    "delivered": frozenset({"signed"}),
    "signed": frozenset(),
}


def verify(batch: Batch) -> dict[str, Mask]:
    """Each rule's mask, true where the row keeps it. A parcel never seen before has no earlier time."""
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


def calculate(batch: Batch) -> dict[str, NDArray[Any]]:
    """How long the parcel was in its previous state, and at delivery how late it is against the promise.

    `seconds_in_state` is NaN for a parcel never seen before. `lateness` is in seconds, positive when late,
    NaN where nothing was promised or the event is no delivery; `late` is 1 where it is positive, else 0.
    """
    time = batch["time"]
    delivered = batch["status"] == "delivered"
    lateness = np.where(delivered, (time - batch["promised"]) / SECOND, np.nan)
    return {
        "seconds_in_state": (time - batch["previous.time"]) / SECOND,
        "lateness": lateness,
        "late": (lateness > 0.0).astype(np.int64),
    }


def _mask(values: Any) -> Mask:
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
