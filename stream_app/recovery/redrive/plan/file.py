"""A plan: what will be sent again, where to, and what is expected of it. A file that people review."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from stream_app.errors import ConfigError, Problem
from stream_app.recovery.bounded import decoded
from stream_app.recovery.redrive.message import Lineage
from stream_app.recovery.redrive.select import Selection, digest
from stream_app.recovery.redrive.targets.target import Destination, token
from stream_app.recovery.repair.file import Repair, check_repair

KIND = "stream-app.redrive-plan"
VERSION = 1
STORED, REPEATED = "stored", "repeated"
Newer = Literal["undecided", "skip", "apply", "replay"]
_DEEPEST = 400  # a record before and after a repair, both of which are bounded
_AGAIN = "plan again: stream-app failures plan …"


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a record that is sent once more behind a late one lies in the stream; `arrived` in ms."""

    shard: str
    sequence: str
    sub: int
    arrived: int


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One record to send: the failure's key and ETag, or its `place` in the stream.

    `root` is the first failure of its line (this one where empty), `device`, `event` and `id` are what the pipeline
    will know it by, `expected` is what it will make of it: `stored`, `repeated`, or a code.
    """

    key: str
    etag: str = ""
    root: str = ""
    attempt: int
    device: str
    event: str | None = None
    id: str | None = None
    expected: str
    place: Place | None = None

    @property
    def lineage(self) -> Lineage:
        """Which attempt at which record."""
        return Lineage(self.root or self.key, self.attempt)

    @property
    def token(self) -> str:
        """The idempotency key."""
        return token(self.lineage)


class LeftOut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A failure that was selected, and why it is not sent: a word for the count, and the particulars."""

    key: str
    etag: str
    why: str
    detail: str = ""


class Sample(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One record as it failed and as it would be sent; `before` and `after` are its fields, None for mere bytes."""

    key: str
    code: str
    reason: str
    expected: str
    because: str = ""
    before: Any = None
    after: Any = None


class Overtaken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A device of which a newer record was already processed: that one's time, and this plan's oldest behind it."""

    device: str
    processed: str
    planned: str
    records: int


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `failures apply` carries out.

    Of `count` records selected, `items` are sent, in this order; `left_out` counts the others by why. `codes` are
    those under which they were parked, `expected` what the pipeline would make of them now. `newer` says what
    becomes of records whose device is already further: `overtaken` names some of them. `selection_digest` is that
    of all keys and ETags selected, `id` of everything that decides what is sent.
    """

    kind: str = KIND
    version: int = VERSION
    id: str = ""
    made_at: datetime
    by: str
    consumer: str
    stream: str
    bucket: str
    selection: Selection
    destination: Destination
    repair: Repair | None
    newer: Newer
    max_redrives: int
    count: int
    sent: int
    replayed: int
    left_out: Mapping[str, int]
    codes: Mapping[str, int]
    expected: Mapping[str, int]
    devices: int
    oldest: datetime | None
    newest: datetime | None
    age_s: int | None
    overtaken_count: int
    overtaken: tuple[Overtaken, ...]
    sample: tuple[Sample, ...]
    selection_digest: str
    items: tuple[Item, ...]
    others: tuple[LeftOut, ...]

    def selected(self) -> Iterable[tuple[str, str]]:
        """Keys and ETags of everything that was selected."""
        yield from ((item.key, item.etag) for item in self.items if item.place is None)
        yield from ((other.key, other.etag) for other in self.others)


def sealed(plan: Plan) -> Plan:
    """The plan with its digests."""
    whole = msgspec.structs.replace(plan, selection_digest=digest(plan.selected()), id="")
    return msgspec.structs.replace(whole, id=_id(whole))


def _id(plan: Plan) -> str:
    decides = [
        plan.version,
        plan.consumer,
        plan.stream,
        plan.bucket,
        plan.selection,
        plan.destination,
        plan.repair,
        plan.newer,
        plan.max_redrives,
        plan.selection_digest,
        plan.items,
    ]
    return hashlib.sha256(msgspec.json.encode(decides, order="deterministic")).hexdigest()[:32]


def to_text(plan: Plan) -> str:
    """The plan as JSON: first what people look at, laid out; then a line for each record."""
    values = msgspec.to_builtins(plan)
    lists = {name: values.pop(name) for name in ("items", "others")}
    head = (
        msgspec.json.format(msgspec.json.encode(values), indent=2)
        .decode()
        .rstrip()
        .removesuffix("}")
        .rstrip()
    )
    for name, lines in lists.items():
        body = ",\n".join(f"    {msgspec.json.encode(line).decode()}" for line in lines)
        head += f',\n  "{name}": [' + (f"\n{body}\n  ]" if lines else "]")
    return head + "\n}\n"


def parse(text: str | bytes) -> Plan:
    """The plan in a text. Raises ConfigError when it is none, or was changed after it was made."""
    try:
        plan = decoded(text, Plan, deepest=_DEEPEST)
        changed = sealed(plan) != plan
    except (ValueError, RecursionError) as error:
        raise ConfigError([Problem(f"this is no plan: {error}", _AGAIN)]) from error
    if plan.kind != KIND or plan.version != VERSION:
        raise ConfigError([Problem(f"this is no plan of version {VERSION}", _AGAIN)])
    if plan.repair is not None:
        check_repair(plan.repair, "the plan's repair")
    if changed:
        raise ConfigError([Problem("the plan was changed after it was made", _AGAIN)])
    return plan


def read(path: Path) -> Plan:
    """The plan in a file. Raises ConfigError."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError([Problem(f"cannot read {path}: {error}", "name the file of a plan")]) from error
    return parse(text)
