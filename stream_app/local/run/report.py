"""The summary of a run: records sent, their outcome, and whether all are accounted for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TypedDict

from stream_app.local.run.top_anomalies import AnomalySummary


class UnsendableRows(TypedDict):
    """Records that Kinesis cannot accept for one reason: their number and their first rows in the data set."""

    count: int
    rows: list[int]


@dataclass(frozen=True, slots=True)
class Report:
    """The result of one run.

    `expected` are the failures that the seeded faults should cause, by code and "repeated". `error` is the reason
    why a run ended before all records were accounted for, and `waiting` its outstanding work at that time.
    `unsendable` are the records that Kinesis cannot accept, by reason.
    """

    sent: int
    accepted: int
    stored: int
    repeated: int
    parked: Mapping[str, int]
    hydrated: int
    corrected: int
    manual: int
    redriven: int
    processed: int
    missing: int
    duplicated: int
    pending: int
    anomalies: int
    segments: int
    ready_s: float | None
    elapsed_s: float
    records_per_s: float
    latency_ms: Mapping[str, float | None]
    shards: Mapping[str, Mapping[str, int]]
    expected: Mapping[str, int]
    limit: str
    memory_mb: Mapping[str, Mapping[str, float]]
    restarts: int = 0
    strangest: tuple[AnomalySummary, ...] = field(default=())
    interrupted: bool = False
    problems: tuple[str, ...] = field(default=())
    error: str | None = None
    waiting: Mapping[str, object] = field(default_factory=dict)
    unsendable: Mapping[str, UnsendableRows] = field(default_factory=dict)

    @property
    def balanced(self) -> bool:
        """Whether every accepted record is stored, repeated or parked exactly once, without any problem."""
        accounted = self.stored + self.repeated + sum(self.parked.values())
        return (
            accounted == self.accepted
            and not (self.missing or self.duplicated or self.pending)
            and not self.problems
            and self.error is None
        )

    def to_json(self) -> dict[str, object]:
        """Return the report as built-in types."""
        return {**asdict(self), "balanced": self.balanced}


def unexpected(expected: Mapping[str, int], parked: Mapping[str, int], repeated: int) -> list[str]:
    """Return the differences between the actual and the expected numbers of parked and repeated records."""
    found = {**parked, "repeated": repeated}
    names = sorted({*expected, *found})
    return [
        f"{name}: {found.get(name, 0)}, expected {expected.get(name, 0)}"
        for name in names
        if found.get(name, 0) != expected.get(name, 0)
    ]
