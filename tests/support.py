"""A world in memory for `consumer.shard`: every effect goes into one log, and any of them can be made to fail."""

from __future__ import annotations

import hashlib
import pickle
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np
from botocore.exceptions import ClientError

from stream_app.app import OutboxAlerts
from stream_app.aws.objects import DIGEST, RECORDS, put_exact
from stream_app.aws.retry import Policy, call, retrying
from stream_app.consumer.alerting.alerts import Alerts
from stream_app.consumer.alerting.outbox import Outbox
from stream_app.consumer.dependencies import ShardDependencies
from stream_app.consumer.quarantine.policy import Isolation
from stream_app.consumer.snapshots import Lineage
from stream_app.errors import TransientError
from stream_app.model.record import Batch, Failure, Position
from stream_app.model.segment import Segment, token
from stream_app.pipeline.flow import Processed
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.state.packing import pack, unpack
from stream_app.settings import Settings
from stream_app.sinks.quarantine import Attempts, Decision
from stream_app.telemetry.summary import Summary

SHARD = "shardId-000000000007"
WHOLE = Lineage((), 0, 2**128 - 1)
POLICY = Policy(attempts=3, base_ms=0, cap_ms=0)
# What became of a row, to the last bit.
Fate = tuple[Any, ...]


class Effect(NamedTuple):
    """One effect on the world: which, and the segment or the position that it is of."""

    kind: str
    name: str


class CrashError(BaseException):
    """The process died here."""


def value_of(column: np.ndarray[Any, Any], row: int) -> Any:
    """One value with its type; numbers and times as their bits."""
    if column.dtype.kind == "O":
        return type(column[row]).__name__, column[row]
    return column.dtype.str, column[row : row + 1].tobytes()


def fates(
    passed: Mapping[str, Batch], failed: Sequence[Failure], repeated: Any, start: int
) -> dict[int, Fate]:
    """Each row, counted from `start`, with its columns or its failure or neither."""
    found: dict[int, Fate] = {}
    for name, batch in passed.items():
        assert (np.diff(batch.rows) > 0).all(), "rows are in order"
        for at, row in enumerate(batch.rows.tolist()):
            columns = {column: value_of(batch[column], at) for column in batch.columns}
            found[start + row] = ("passed", name, columns)
    for failure in failed:
        found[start + failure.row] = ("failed", *msgspec.structs.astuple(failure)[1:])
    for row in repeated.tolist():
        found[start + row] = ("repeated",)
    return found


def fates_of(result: Processed, start: int = 0) -> dict[int, Fate]:
    """The same of one call of `process`."""
    return fates(result.passed, result.failed, result.repeated, start)


def known(snapshot: bytes) -> dict[tuple[str, str, str], bytes]:
    """Everything remembered, by event, part and device; the order of devices means nothing."""
    found: dict[tuple[str, str, str], bytes] = {}
    for event, parts in unpack(snapshot)["events"].items():
        keys = parts["keys"]
        devices = {
            "arrived": np.frombuffer(parts["arrived"], np.int64).tolist(),
            "seen": _seen(parts["seen"]),
            "previous": (parts["previous"] or {"last": [None] * len(keys)})["last"],
            "windows": _places(parts["windows"], ("stamps", "values"), len(keys)),
            "checks": _places(parts["checks"] or {}, ("at", "last", "same", "run"), len(keys)),
        }
        found |= {
            (event, part, key): pack(item)
            for part, items in devices.items()
            for key, item in zip(keys, items, strict=True)
        }
        found |= {(event, "detector", key): pack(item) for key, item in unpack(parts["detector"]).items()}
    return found


def _places(arrays: Mapping[str, bytes], names: Sequence[str], devices: int) -> list[list[bytes]]:
    """By device its part of each array."""
    widths = {name: len(arrays[name]) // devices for name in names if name in arrays and devices}
    return [
        [arrays[name][at * width : (at + 1) * width] for name, width in widths.items()]
        for at in range(devices)
    ]


def _seen(dumped: Mapping[str, bytes]) -> list[Any]:
    counts, lengths, marks = (np.frombuffer(dumped[n], np.int64) for n in ("counts", "lengths", "marks"))
    ends = np.cumsum(lengths)
    return [
        (count, marks[end - length : end].tolist())
        for count, length, end in zip(counts.tolist(), lengths.tolist(), ends.tolist(), strict=True)
    ]


@dataclass
class Stores:
    """What survives a crash, and the log. `trouble` is asked before each effect, and may raise."""

    stored: dict[str, dict[str, Fate]] = field(default_factory=dict)
    parked: dict[str, str] = field(default_factory=dict)
    alerts: list[str] = field(default_factory=list)
    stored_alerts: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    snapshots: dict[tuple[str, str], bytes] = field(default_factory=dict)
    log: list[Effect] = field(default_factory=list)
    summaries: list[Summary] = field(default_factory=list)
    notes: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    lineages: dict[str, Lineage] = field(default_factory=dict)
    trouble: Callable[[Effect], None] = lambda _effect: None
    now_ms: int = 0

    def act(self, kind: str, name: str) -> None:
        """An effect that happens, unless there is trouble."""
        effect = Effect(kind, name)
        self.trouble(effect)
        self.log.append(effect)

    def by_position(self) -> dict[str, Fate]:
        """Everything stored, whichever segment it is in; no position is in two."""
        rows: dict[str, Fate] = {}
        for segment in self.stored.values():
            assert not rows.keys() & segment.keys()
            rows |= segment
        return rows

    def load(self, shard: str, name: str) -> bytes | None:
        self.trouble(Effect("load", name))
        return self.snapshots.get((shard, name))

    def save(self, shard: str, name: str, snapshot: bytes) -> None:
        self.act("state", name)
        self.snapshots[shard, name] = snapshot

    def forget(self, shard: str, name: str) -> None:
        self.act("forget", name)
        self.snapshots.pop((shard, name), None)

    def park(self, segment: Segment) -> None:
        self.act("park", segment.name)
        for failure in segment.failed:
            self.parked[token(segment.records[failure.row].position(segment.shard))] = failure.code.value


@dataclass
class MemoryQuarantine:
    """Attempts and decisions that survive a crash; `log` names what was written, in order."""

    saved: dict[str, Attempts] = field(default_factory=dict)
    decided: dict[str, Decision] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    def attempts(self, shard: str) -> Attempts | None:
        return self.saved.get(shard)

    def save_attempts(self, shard: str, attempts: Attempts) -> None:
        self.log.append("attempts")
        self.saved[shard] = attempts

    def decisions(self, shard: str) -> list[Decision]:
        mine = (decision for decision in self.decided.values() if decision.shard == shard)
        return sorted(mine, key=lambda decision: decision.position.order)

    def decide(self, decision: Decision) -> Decision:
        self.log.append("decision")
        return self.decided.setdefault(str(decision.position), decision)


@dataclass
class MemoryObjects:
    """As much of S3 as `put_exact` uses, with its conditional writes, over the rows that are stored by segment."""

    stored: dict[str, dict[str, Fate]]

    def put_object(
        self, *, Key: str, Body: bytes, IfNoneMatch: str = "", IfMatch: str = "", **_: Any
    ) -> None:
        known = Key in self.stored
        if (IfNoneMatch and known) or (IfMatch and (not known or IfMatch != self.etag(Key))):
            raise ClientError({"Error": {"Code": "PreconditionFailed"}}, "PutObject")
        self.stored[Key] = pickle.loads(Body)

    def head_object(self, *, Key: str, **_: Any) -> dict[str, Any]:
        if Key not in self.stored:
            raise ClientError({"Error": {"Code": "404"}}, "HeadObject")
        metadata = {DIGEST: self.etag(Key), RECORDS: str(len(self.stored[Key]))}
        return {"Metadata": metadata, "ETag": self.etag(Key)}

    def etag(self, key: str) -> str:
        return digest_of(self.stored[key])


def digest_of(rows: Mapping[str, Fate]) -> str:
    return hashlib.sha256(repr(rows).encode()).hexdigest()


@dataclass
class MemorySink:
    """Stores rows under the segment's name by the conditional write of the sinks on S3; rejects nothing."""

    stores: Stores
    kind: str

    def write(self, segment: Segment) -> Sequence[Failure]:
        self.stores.act(self.kind, segment.name)
        if self.kind == LAST_SINK:
            by_row = sorted(fates(segment.passed, segment.failed, segment.repeated, 0).items())
            rows = dict(
                zip(segment.tokens(row for row, _ in by_row), (fate for _, fate in by_row), strict=True)
            )
            objects: Any = MemoryObjects(self.stores.stored)
            put_exact(
                objects,
                bucket="bucket",
                key=segment.name,
                body=pickle.dumps(rows),
                digest=digest_of(rows),
                content_type="rows",
                records=len(segment.records),
                may_shrink=not segment.by_clock,
            )
        return ()

    def close(self) -> None:
        """Nothing is held."""


SINKS = ("sink 1", "sink 2")
LAST_SINK = SINKS[-1]


@dataclass
class MemoryBus:
    """PutEvents of alerts, each of which may be in trouble."""

    stores: Stores

    def put_events(self, *, Entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        for entry in Entries:
            alert = msgspec.json.decode(entry["Detail"])
            name = str(Position(alert["shard"], alert["sequence"], alert["sub"]))
            self.stores.trouble(Effect("alert", name))
            self.stores.alerts.append(name)
        return {"Entries": [{"EventId": "1"} for _ in Entries]}


@dataclass
class MemoryAlertStore:
    """Alerts that the bus did not take (protocol `AlertStore`)."""

    stores: Stores

    def save(self, shard: str, name: str, alerts: Sequence[Mapping[str, Any]]) -> None:
        self.stores.act("alerts", name)
        self.stores.stored_alerts[shard, name] = [dict(alert) for alert in alerts]

    def load(self, shard: str, name: str) -> list[dict[str, Any]]:
        return self.stores.stored_alerts.get((shard, name), [])

    def names(self, shard: str) -> list[str]:
        return [name for owner, name in self.stores.stored_alerts if owner == shard]

    def forget(self, shard: str, name: str) -> None:
        self.stores.stored_alerts.pop((shard, name), None)


def alerts(stores: Stores, registry: Registry) -> Alerts:
    """The product's outbox between a bus and a store in memory."""
    bus: Any = MemoryBus(stores)
    outbox = Outbox(
        bus,
        "bus",
        MemoryAlertStore(stores),
        warn=lambda what, **values: stores.notes.append((what, values)),
        clock=lambda: stores.now_ms / 1_000,
    )
    return OutboxAlerts(settings(), registry, outbox)


def settings(**values: Any) -> Settings:
    """Small segments, committed often."""
    known = {"segment_seconds": 2, "segment_records": 5, "checkpoint_seconds": 1, "clock_margin_ms": 100}
    return Settings("app", "devices", **{**known, "max_record_bytes": 4_096, "seen_ids": 4, **values})


def dependencies(
    stores: Stores, registry: Registry, isolation: Isolation | None = None, **values: Any
) -> ShardDependencies:
    """A world over these stores; what fails passingly is tried three times, without a pause."""

    def attempt(what: str, action: Callable[[], Any]) -> Any:
        return call(action, POLICY, sleep=lambda _seconds: None, rng=random.Random(0), what=what)

    def sink(kind: str) -> Any:
        return retrying(MemorySink(stores, kind), POLICY, sleep=lambda _seconds: None, rng=random.Random(0))

    return ShardDependencies(
        registry=registry,
        settings=settings(**values),
        sinks=[sink(kind) for kind in SINKS],
        park=lambda segment: attempt("dead letters", lambda: stores.park(segment)),
        alerts=alerts(stores, registry),
        snapshots=stores,
        lineage=lambda shard: stores.lineages.get(shard, WHOLE),
        attempt=attempt,
        report=stores.summaries.append,
        note=lambda what, **values: stores.notes.append((what, values)),
        now_ms=lambda: stores.now_ms,
        isolation=isolation,
    )


def failing(kinds: Mapping[int, type[BaseException]]) -> Callable[[Effect], None]:
    """Trouble at effects by their number, counted from 0."""
    count = iter(range(1_000_000))

    def trouble(effect: Effect) -> None:
        kind = kinds.get(next(count))
        if kind is not None:
            raise kind(f"{effect.kind} of {effect.name}")

    return trouble


def passing(times: int) -> Callable[[Effect], None]:
    """Each effect fails `times` times before it succeeds."""
    failed: dict[Effect, int] = {}

    def trouble(effect: Effect) -> None:
        failed[effect] = failed.get(effect, 0) + 1
        if failed[effect] <= times:
            raise TransientError(f"{effect.kind} of {effect.name}")

    return trouble
