"""Helpers that process records of an event type `thing` with any schema."""

from __future__ import annotations

from typing import Any

from stream_app.model.event import Event
from stream_app.model.record import Code
from stream_app.pipeline.flow import Processed, process
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.testing import record
from tests import avro

MAX = 1_000_000
EVERY = Registry.of([avro.EVERY], {"every": [avro.SCHEMA]})


def one_schema(*fields: dict[str, Any], name: str = "thing") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": "key", "type": "string"}, *fields]}


def thing(*versions: dict[str, Any], dry_run: bool = True, **declared: Any) -> Registry:
    """Return a registry of the event `thing` with these versions of its schema."""
    return Registry.of([Event(name="thing", key="key", **declared)], {"thing": versions}, dry_run=dry_run)


def run(registry: Registry, *payloads: bytes) -> Processed:
    events = {name: codec.event for name, codec in registry.codecs.items()}
    records = [record(data, at) for at, data in enumerate(payloads)]
    return process(records, registry, ShardState(events, 9), MAX)


def column(registry: Registry, name: str, *payloads: bytes) -> list[Any]:
    result = run(registry, *payloads)
    assert not result.failed
    values: list[Any] = result.passed["thing"][name].tolist()
    return values


def codes(registry: Registry, *payloads: bytes) -> list[tuple[Code, str]]:
    return [(failure.code, failure.reason) for failure in run(registry, *payloads).failed]
