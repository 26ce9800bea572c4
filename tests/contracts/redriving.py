"""What the tests of redrive share: an application over moto, its failures, and targets that remember."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from stream_app.model.record import Position
from stream_app.pipeline.registry import Registry
from stream_app.recovery.redrive.apply.run import Timing
from stream_app.recovery.redrive.context import RedriveContext
from stream_app.recovery.redrive.message import Lineage
from stream_app.recovery.redrive.plan.build import PlanRequest, build_plan
from stream_app.recovery.redrive.plan.file import Plan
from stream_app.recovery.redrive.select import Selection
from stream_app.recovery.redrive.targets.target import (
    Answer,
    Delivered,
    Destination,
    Draft,
    EncodedRecord,
    Retryable,
    Target,
    Unsupported,
)
from stream_app.recovery.store import failure, put, status
from stream_app.settings import Settings
from tests import samples
from tests.unit.test_recovery_store import dead_letter

BUCKET, STREAM, HISTORY, LATEST, BUS = "road", "devices", "air-history", "air-latest", "air"
START = samples.START
LEASE_MS = 60_000
Client = Callable[[str], Any]
HTTP = Destination("http", "https://example.com/in")


def settings(application: str = "air", **values: Any) -> Settings:
    known = {"bucket": BUCKET, "bus": BUS, "latest_table": LATEST, "max_record_bytes": 4_096}
    return Settings(application, STREAM, **{**known, **values})


def make_tables(client: Client) -> None:
    """The bucket and both tables, as infra/storage.yaml has them."""
    client("s3").create_bucket(Bucket=BUCKET)
    for table, names in ((HISTORY, ("pk", "sk")), (LATEST, ("device",))):
        client("dynamodb").create_table(
            TableName=table,
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in names],
            KeySchema=[
                {"AttributeName": name, "KeyType": kind}
                for name, kind in zip(names, ("HASH", "RANGE"), strict=False)
            ],
            BillingMode="PAY_PER_REQUEST",
        )


@dataclass
class Clock:
    """Time of day in ms; it goes on when somebody pauses."""

    ms: int = START + 24 * samples.HOUR
    paused: list[float] = field(default_factory=list)

    def now(self) -> int:
        return self.ms

    def pause(self, seconds: float) -> None:
        self.paused.append(seconds)
        self.ms += round(seconds * 1000)

    def timing(self) -> Timing:
        return Timing(pause=self.pause, clock=lambda: self.ms / 1000)


def context(
    client: Client, clock: Clock, application: str = "air", registry: Registry | None = None
) -> RedriveContext:
    """An applier of its own."""
    return RedriveContext(
        settings=settings(application),
        client=client,
        registry=registry or samples.registry(),
        history=HISTORY,
        now_ms=clock.now,
        by="ann",
        lease_ms=LEASE_MS,
    )


def reading(number: int, device: str = "A", **fields: Any) -> dict[str, Any]:
    """A reading whose value breaks a rule."""
    known = {
        "id": f"{device}/{number}",
        "device": device,
        "time": START + number * samples.HOUR,
        "value": 500.0,
    }
    return {**known, **fields}


def park(
    s3: Any, data: bytes | None, number: int, *, device: str = "A", consumer: str = "air", **known: Any
) -> str:
    """A failure in the store, with its key; `number` is its place in the shard and its arrival in minutes."""
    position = Position("shardId-000000000000", str(1_000 + number))
    about = {"consumer": consumer, "event": "reading", **known}
    made = msgspec.structs.replace(dead_letter(position, device, START + number * 60_000), **about)
    stored = failure(made, data)
    assert put(s3, BUCKET, stored)
    return stored.key


def park_readings(s3: Any, count: int, devices: str = "AB", consumer: str = "air") -> list[str]:
    """Readings of several devices by turns, each of which broke a rule."""
    found = []
    for number in range(count):
        device = devices[number % len(devices)]
        data = samples.as_envelope("reading", reading(number, device), f"e-{number}")
        found.append(park(s3, data, number, device=device, consumer=consumer))
    return found


def statuses(s3: Any, found: Iterable[str]) -> Counter[str | None]:
    return Counter(status(s3, BUCKET, key) for key in found)


def plan_of(some: RedriveContext, target: Target, to: Destination = HTTP, **wish: Any) -> Plan:
    selection = wish.pop("selection", Selection())
    return build_plan(some, PlanRequest(selection, to, **wish), target)


class CrashError(BaseException):
    """The process died here."""


@dataclass
class Endpoint:
    """A receiver that collapses idempotency keys: `effects` holds what took effect, `calls` every try, in order.

    `script` is asked before each record is taken, by its number of the tries so far, and may answer for it.
    """

    script: Callable[[EncodedRecord, int], Answer | None] = lambda _parcel, _number: None
    batch: int = 3
    deduplicated: bool = True
    effects: dict[str, Draft] = field(default_factory=dict)
    calls: list[Draft] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def where(self) -> str:
        return "https://example.com/in"

    @property
    def counts(self) -> Counter[str]:
        """How often each idempotency key was seen."""
        return Counter(draft.token for draft in self.calls)

    def encode(self, draft: Draft) -> EncodedRecord | Unsupported:
        return EncodedRecord(draft.key, draft, len(draft.data), self.deduplicated, True)

    def send(self, parcels: Sequence[EncodedRecord]) -> list[Answer]:
        self.batches.append(len(parcels))
        return [self._take(parcel) for parcel in parcels]

    def close(self) -> None:
        """Nothing is held."""

    def _take(self, parcel: EncodedRecord) -> Answer:
        with self.lock:
            scripted = self.script(parcel, len(self.calls))
            if scripted is None or (isinstance(scripted, Retryable) and scripted.doubt):
                # An answer that is lost after the record was taken.
                self.calls.append(parcel.body)
                self.effects.setdefault(parcel.body.token, parcel.body)
            return scripted or Delivered({"status": "200"})

    def roots(self) -> list[str]:
        """The failures that took effect, in order."""
        return [draft.lineage.root for draft in self.effects.values()]


class Mortal:
    """Clients of a process that dies at its `at`-th effect, before it happens or after.

    Every later call of any client finds it dead. `effects` names those that happened.
    """

    _EFFECTS = frozenset({"put_item", "update_item", "delete_item", "put_object_tagging", "send"})

    def __init__(self, client: Client, at: int = -1, *, after: bool = False) -> None:
        self._client, self._at, self._after = client, at, after
        self._lock = threading.Lock()
        self.effects: list[str] = []
        self.dead = False

    def __call__(self, service: str) -> Any:
        return _MortalClient(self, self._client(service))

    def target(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint as this process reaches it: each record is an effect."""

        def script(parcel: EncodedRecord, number: int) -> Answer | None:
            def take() -> Answer | None:
                endpoint.calls.append(parcel.body)
                endpoint.effects.setdefault(parcel.body.token, parcel.body)
                return Delivered()

            answer: Answer | None = self.run("send", take)
            return answer

        return replace(endpoint, script=script, calls=[], effects={}, batches=endpoint.batches)

    def run(self, name: str, action: Callable[[], Any]) -> Any:
        if name not in self._EFFECTS:
            if self.dead:
                raise CrashError(name)
            return action()
        with self._lock:
            dying = len(self.effects) == self._at
            if self.dead or (dying and not self._after):
                self.dead = True
                raise CrashError(name)
            result = action()
            self.effects.append(name)
            if dying:
                self.dead = True
                raise CrashError(name)
            return result


class _MortalClient:
    def __init__(self, process: Mortal, client: Any) -> None:
        self._process, self._wrapped = process, client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._wrapped, name)
        if not callable(method) or name in ("get_paginator", "exceptions"):
            return method
        return lambda **request: self._process.run(name, lambda: method(**request))


def lineages(plan: Plan) -> list[Lineage]:
    return [item.lineage for item in plan.items]
