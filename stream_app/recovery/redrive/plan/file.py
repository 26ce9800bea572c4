"""The plan file: which records to send again, where to, and the expected results. People review it."""

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
_MAX_DEPTH = 400  # the samples contain records before and after a repair, each of bounded depth
_AGAIN = "create a new plan: stream-app failures plan …"


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The stream position of a record that is replayed after a late one; `arrived` in ms since the epoch."""

    shard: str
    sequence: str
    sub: int
    arrived: int


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One record to send: the key and ETag of a failure, or the `place` of a record in the stream.

    `root` is the first failure of its lineage (empty: this one). `device`, `event` and `id` identify the record in
    the pipeline. `expected` is the predicted result: `stored`, `repeated` or a failure code.
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
        """The record and the number of the attempt."""
        return Lineage(self.root or self.key, self.attempt)

    @property
    def token(self) -> str:
        """The idempotency key."""
        return token(self.lineage)


class LeftOut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A selected failure that is not sent: the reason, by which failures are counted, and details."""

    key: str
    etag: str
    why: str
    detail: str = ""


class Sample(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A record as it failed and as it would be sent: its fields `before` and `after`, None if not decodable."""

    key: str
    code: str
    reason: str
    expected: str
    because: str = ""
    before: dict[str, Any] | None = None  # JSON values
    after: dict[str, Any] | None = None


class Overtaken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A device with a newer processed record: the event time of that record and of the plan's oldest late one."""

    device: str
    processed: str
    planned: str
    records: int


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The input of `failures apply`.

    Of the `count` selected records, `items` are sent, in this order; `left_out` counts the others by reason. `codes`
    counts the failure codes, `expected` the predicted results. `newer` is the policy for late records, whose device
    has a newer processed record; `overtaken` lists some of these devices. `selection_digest` is the digest of all
    selected keys and ETags, `id` of everything that determines what is sent.
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
        """Iterate over keys and ETags of all selected failures."""
        yield from ((item.key, item.etag) for item in self.items if item.place is None)
        yield from ((other.key, other.etag) for other in self.others)


def with_digests(plan: Plan) -> Plan:
    """Return the plan with its digests filled in."""
    without_id = msgspec.structs.replace(plan, selection_digest=digest(plan.selected()), id="")
    return msgspec.structs.replace(without_id, id=_id(without_id))


def _id(plan: Plan) -> str:
    content = [
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
    return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()[:32]


def to_text(plan: Plan) -> str:
    """Encode the plan as JSON: an indented summary, then one line per record."""
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
    """Parse a plan. Raises ConfigError if it is malformed or was changed after it was created."""
    try:
        plan = decoded(text, Plan, deepest=_MAX_DEPTH)
        changed = with_digests(plan) != plan
    except (ValueError, RecursionError) as error:
        raise ConfigError([Problem(f"not a plan: {error}", _AGAIN)]) from error
    if plan.kind != KIND or plan.version != VERSION:
        raise ConfigError([Problem(f"not a plan of version {VERSION}", _AGAIN)])
    if plan.repair is not None:
        check_repair(plan.repair, "the plan's repair")
    if changed:
        raise ConfigError([Problem("the plan was changed after it was created", _AGAIN)])
    return plan


def read(path: Path) -> Plan:
    """Read a plan file. Raises ConfigError."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            [Problem(f"cannot read {path}: {error}", "give the path of a plan file")]
        ) from error
    return parse(text)
