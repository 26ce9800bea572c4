"""The summary of a run: what was sent, what became of it, and whether it balances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Report:
    """One run's outcome. `expected` is what the seeded bad input should have led to, by code and "repeated".

    `error` says why a run ended before everything was accounted for, `waiting` what it waited for then.
    `unsendable` are records that Kinesis cannot take, by why: their `count`, and the first `rows` of the data.
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
    shards: Mapping[str, Mapping[str, Any]]
    expected: Mapping[str, int]
    limit: str
    memory_mb: Mapping[str, Mapping[str, float]]
    restarts: int = 0
    strangest: tuple[Mapping[str, Any], ...] = field(default=())
    interrupted: bool = False
    problems: tuple[str, ...] = field(default=())
    error: str | None = None
    waiting: Mapping[str, Any] = field(default_factory=dict)
    unsendable: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def balanced(self) -> bool:
        """Every accepted record is stored, repeated or parked, once; and bad input ended as the seed says."""
        accounted = self.stored + self.repeated + sum(self.parked.values())
        return (
            accounted == self.accepted
            and not (self.missing or self.duplicated or self.pending)
            and not self.problems
            and self.error is None
        )

    def to_json(self) -> dict[str, Any]:
        """Built-in types."""
        return {**asdict(self), "balanced": self.balanced}


def unexpected(expected: Mapping[str, int], parked: Mapping[str, int], repeated: int) -> list[str]:
    """Where what was parked or repeated differs from what the seed says."""
    found = {**parked, "repeated": repeated}
    names = sorted({*expected, *found})
    return [
        f"{name}: {found.get(name, 0)}, expected {expected.get(name, 0)}"
        for name in names
        if found.get(name, 0) != expected.get(name, 0)
    ]
