"""What an audit says: counts and positions, by shard and in total."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

# So many positions of a kind are named for each shard; all are counted.
NAMED = 1_000


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of positions: accepted = stored + repeated + parked + pending + missing + dropped.

    `parked` is by code. `pending` are not accounted for, but lie behind no checkpoint yet; of these, `overdue`
    arrived longer ago than the audit allows. `dropped` lie in KPL aggregates at or behind a record whose keys KCL
    cannot read, so that no consumer gets them. Of the `missing`, `unhydrated` are parked by their manifest but not
    in the failure store (their dead letter is on its way, or lost), and `misrouted` lie in KPL aggregates that KCL
    drops because of the shard's range. `duplicated` are accounted for more than once (and counted above once);
    `unknown` are accounted for, but were never in the stream. `trimmed` were stored and have left the stream.
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
        """Whether every accepted position is accounted for exactly once, or is pending and not overdue."""
        return not (self.missing or self.duplicated or self.unknown or self.overdue or self.dropped)

    def __add__(self, other: Tally) -> Tally:
        codes = sorted({*self.parked, *other.parked})
        parked = {code: self.parked.get(code, 0) + other.parked.get(code, 0) for code in codes}
        names = [item.name for item in dataclasses.fields(self) if item.name != "parked"]
        return Tally(parked=parked, **{name: getattr(self, name) + getattr(other, name) for name in names})


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A position that is accounted for more than once, and the objects that do so (one of them may twice)."""

    position: str
    where: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is known of a shard whose pending records are overdue; times are ISO 8601, UTC.

    `oldest` is when the oldest pending record arrived, at `position`. `stored_at` is when the newest segment was
    stored, None where there is none. `checkpoint_moved` tells whether a checkpoint was made while the audit ran,
    None where that is not known. `message` says it in a sentence.
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
    """One shard's counts, and the positions that are wrong: at most NAMED of each kind."""

    shard: str
    count: Tally
    missing: tuple[str, ...] = ()
    duplicated: tuple[Duplicate, ...] = ()
    unknown: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    waiting: Waiting | None = None


@dataclass(frozen=True, slots=True)
class Audit:
    """What became of everything that a stream holds. `unreadable` are objects that should tell, and do not."""

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
        """Whether the promise holds: nothing missing, doubled, dropped or overdue, and every object could be read."""
        return self.total.balanced and not self.unreadable

    def to_json(self) -> bytes:
        """The audit as a JSON object, with `balanced` and `total`."""
        return msgspec.json.encode(
            {"balanced": self.balanced, "total": self.total, **msgspec.to_builtins(self)}, order="sorted"
        )
