"""Results of an audit: counts and positions, by shard and in total."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

# Positions of a kind that are listed per shard; all are counted.
MAX_POSITIONS = 1_000


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of positions: accepted = stored + repeated + parked + pending + missing + dropped.

    `parked` is by failure code. `pending` ones are not accounted for, but are after the checkpoint; of these,
    `overdue` ones arrived longer ago than the audit allows. `dropped` ones are in KPL aggregates at or after a
    record whose keys KCL cannot read, so that no consumer receives them. Of the `missing`, `unhydrated` ones are
    listed as parked by their manifest but are not in the failure store (their dead letter is in flight, or lost),
    and `misrouted` ones are in KPL aggregates that KCL drops because of the shard's hash key range. `duplicated`
    ones are accounted for more than once (and counted above once); `unknown` ones are accounted for, but were never
    in the stream. `trimmed` ones were stored and are no longer in the stream.
    """

    accepted: int = 0
    stored: int = 0
    repeated: int = 0
    parked: Mapping[str, int] = field(default_factory=dict)
    pending: int = 0
    missing: int = 0
    unhydrated: int = 0
    misrouted: int = 0
    duplicated: int = 0
    unknown: int = 0
    trimmed: int = 0
    overdue: int = 0
    dropped: int = 0

    @property
    def balanced(self) -> bool:
        """Whether every accepted position is accounted for exactly once, or pending and not overdue."""
        return not (self.missing or self.duplicated or self.unknown or self.overdue or self.dropped)

    def __add__(self, other: Tally) -> Tally:
        codes = sorted({*self.parked, *other.parked})
        parked = {code: self.parked.get(code, 0) + other.parked.get(code, 0) for code in codes}
        names = [item.name for item in dataclasses.fields(self) if item.name != "parked"]
        return Tally(parked=parked, **{name: getattr(self, name) + getattr(other, name) for name in names})


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A position that is accounted for more than once, and the objects that do so.

    An object may be listed twice.
    """

    position: str
    where: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """The state of a shard whose pending records are overdue; times are ISO 8601, UTC.

    `oldest` is the arrival of the oldest pending record, at `position`. `stored_at` is when the newest segment was
    stored, None where there is none. `checkpoint_moved` tells whether the checkpoint advanced while the audit ran,
    None where that is not known. `message` describes the state in a sentence.
    """

    records: int
    oldest: str
    position: str
    checkpoint: str
    stored_at: str | None = None
    checkpoint_moved: bool | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class ShardAudit:
    """One shard's counts, and the positions with problems: at most MAX_POSITIONS of each kind."""

    shard: str
    count: Tally
    missing: tuple[str, ...] = ()
    duplicated: tuple[Duplicate, ...] = ()
    unknown: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    waiting: Waiting | None = None


@dataclass(frozen=True, slots=True)
class Audit:
    """The result of an audit of a stream. `unreadable` lists objects that could not be read."""

    stream: str
    consumer: str
    shards: tuple[ShardAudit, ...]
    unreadable: tuple[str, ...] = ()

    @property
    def total(self) -> Tally:
        """The counts of all shards."""
        return sum((shard.count for shard in self.shards), Tally())

    @property
    def balanced(self) -> bool:
        """Whether nothing is missing, duplicated, dropped or overdue, and every object was readable."""
        return self.total.balanced and not self.unreadable

    def to_json(self) -> bytes:
        """Return the audit as a JSON object, with `balanced` and `total`."""
        return msgspec.json.encode(
            {"balanced": self.balanced, "total": self.total, **msgspec.to_builtins(self)}, order="sorted"
        )
