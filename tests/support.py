"""In-memory dependencies of `consumer.shard`: all effects are logged in order, and faults can be injected."""

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
# The outcome of a row, with exact values.
RowOutcome = tuple[Any, ...]


class Effect(NamedTuple):
    """An external effect: its kind, and the name of its segment or position."""

    kind: str
    name: str


class CrashError(BaseException):
    """Simulates the death of the process."""


def value_of(column: np.ndarray[Any, Any], row: int) -> Any:
    """Return a value with its type; numbers and times as their bytes."""
    if column.dtype.kind == "O":
        return type(column[row]).__name__, column[row]
    return column.dtype.str, column[row : row + 1].tobytes()


def outcomes_by_row(
    passed: Mapping[str, Batch], failed: Sequence[Failure], repeated: Any, start: int
) -> dict[int, RowOutcome]:
    """Return the outcome of each row by its number, counted from `start`: its columns, its failure or a repeat."""
    found: dict[int, RowOutcome] = {}
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


def outcomes_of(result: Processed, start: int = 0) -> dict[int, RowOutcome]:
    """Return the outcomes of one call of `process` by row."""
    return outcomes_by_row(result.passed, result.failed, result.repeated, start)


def entries_of(snapshot: bytes) -> dict[tuple[str, str, str], bytes]:
    """Return the entries of a snapshot by event, part and device, so that the order of devices does not matter."""
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
    """Split the arrays by device."""
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
    """Storage that survives a crash, and an effect log. `inject_fault` runs before each effect and may raise."""

    stored: dict[str, dict[str, RowOutcome]] = field(default_factory=dict)
    parked: dict[str, str] = field(default_factory=dict)
    alerts: list[str] = field(default_factory=list)
    stored_alerts: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    snapshots: dict[tuple[str, str], bytes] = field(default_factory=dict)
    log: list[Effect] = field(default_factory=list)
    summaries: list[Summary] = field(default_factory=list)
    notes: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    lineages: dict[str, Lineage] = field(default_factory=dict)
    inject_fault: Callable[[Effect], None] = lambda _effect: None
    now_ms: int = 0

    def act(self, kind: str, name: str) -> None:
        """Log an effect, unless a fault is injected."""
        effect = Effect(kind, name)
        self.inject_fault(effect)
        self.log.append(effect)

    def by_position(self) -> dict[str, RowOutcome]:
        """Return all stored rows by position; no position may be in two segments."""
        rows: dict[str, RowOutcome] = {}
        for segment in self.stored.values():
            assert not rows.keys() & segment.keys()
            rows |= segment
        return rows

    def load(self, shard: str, name: str) -> bytes | None:
        self.inject_fault(Effect("load", name))
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
    """Stores attempts and decisions across crashes; `log` names the writes in order."""

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
    """The part of S3 that `put_exact` uses, with conditional writes, on top of the rows stored by segment."""

    stored: dict[str, dict[str, RowOutcome]]

    def put_object(
        self, *, Key: str, Body: bytes, IfNoneMatch: str = "", IfMatch: str = "", **_: Any
    ) -> None:
        exists = Key in self.stored
        if (IfNoneMatch and exists) or (IfMatch and (not exists or IfMatch != self.etag(Key))):
            raise ClientError({"Error": {"Code": "PreconditionFailed"}}, "PutObject")
        self.stored[Key] = pickle.loads(Body)

    def head_object(self, *, Key: str, **_: Any) -> dict[str, Any]:
        if Key not in self.stored:
            raise ClientError({"Error": {"Code": "404"}}, "HeadObject")
        metadata = {DIGEST: self.etag(Key), RECORDS: str(len(self.stored[Key]))}
        return {"Metadata": metadata, "ETag": self.etag(Key)}

    def etag(self, key: str) -> str:
        return digest_of(self.stored[key])


def digest_of(rows: Mapping[str, RowOutcome]) -> str:
    return hashlib.sha256(repr(rows).encode()).hexdigest()


@dataclass
class MemorySink:
    """Stores rows under the segment's name with the conditional write of the S3 sinks; rejects no row."""

    stores: Stores
    kind: str

    def write(self, segment: Segment) -> Sequence[Failure]:
        self.stores.act(self.kind, segment.name)
        if self.kind == LAST_SINK:
            by_row = sorted(outcomes_by_row(segment.passed, segment.failed, segment.repeated, 0).items())
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
        """Nothing to close."""


SINKS = ("sink 1", "sink 2")
LAST_SINK = SINKS[-1]


@dataclass
class MemoryBus:
    """An event bus: PutEvents of alerts, with injected faults."""

    stores: Stores

    def put_events(self, *, Entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        for entry in Entries:
            alert = msgspec.json.decode(entry["Detail"])
            name = str(Position(alert["shard"], alert["sequence"], alert["sub"]))
            self.stores.inject_fault(Effect("alert", name))
            self.stores.alerts.append(name)
        return {"Entries": [{"EventId": "1"} for _ in Entries]}


@dataclass
class MemoryAlertStore:
    """Stores alerts that the bus did not accept (protocol `AlertStore`)."""

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
    """Return the real outbox with an in-memory bus and store."""
    bus: Any = MemoryBus(stores)
    outbox = Outbox(
        bus,
        "bus",
        MemoryAlertStore(stores),
        warn=lambda what, **values: stores.notes.append((what, values)),
        attempt=attempt,
        clock=lambda: stores.now_ms / 1_000,
    )
    return OutboxAlerts(settings(), registry, outbox)


def attempt(what: str, action: Callable[[], Any]) -> Any:
    """Retry an action as the application does: transient errors get three attempts, here without a delay."""
    return call(action, POLICY, sleep=lambda _seconds: None, rng=random.Random(0), what=what)


def settings(**values: Any) -> Settings:
    """Return settings with small segments and frequent checkpoints."""
    defaults = {"segment_seconds": 2, "segment_records": 5, "checkpoint_seconds": 1, "clock_margin_ms": 100}
    return Settings("app", "devices", **{**defaults, "max_record_bytes": 4_096, "seen_ids": 4, **values})


def dependencies(
    stores: Stores, registry: Registry, isolation: Isolation | None = None, **values: Any
) -> ShardDependencies:
    """Return dependencies that use these stores; transient errors get three attempts without a delay."""

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
    """Return a fault injector that raises at the given effects, numbered from 0."""
    count = iter(range(1_000_000))

    def inject_fault(effect: Effect) -> None:
        kind = kinds.get(next(count))
        if kind is not None:
            raise kind(f"{effect.kind} of {effect.name}")

    return inject_fault


def failing_first(times: int) -> Callable[[Effect], None]:
    """Return a fault injector by which each effect fails `times` times before it succeeds."""
    failed: dict[Effect, int] = {}

    def inject_fault(effect: Effect) -> None:
        failed[effect] = failed.get(effect, 0) + 1
        if failed[effect] <= times:
            raise TransientError(f"{effect.kind} of {effect.name}")

    return inject_fault
