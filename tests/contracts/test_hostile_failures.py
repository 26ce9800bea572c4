"""Deeply nested or very long payloads never crash `failures show`, `failures plan` or hydrate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aws_kinesis_agg.aggregator import RecordAggregator

from stream_app.model.record import Position
from stream_app.recovery.hydrate.batch import hydrate
from stream_app.recovery.redrive.plan.file import parse, to_text
from stream_app.recovery.repair.file import parse_repair
from stream_app.recovery.store import failure, put
from tests import samples
from tests.contracts import redriving as on
from tests.contracts.failing import failed, properties, run, told
from tests.contracts.hydrating import BUCKET, dependencies
from tests.unit.test_recovery_store import dead_letter

__all__ = ["properties"]  # a fixture


def nested(depth: int, inside: bytes = b"1") -> bytes:
    return b'{"a":' * depth + inside + b"}" * depth


PAYLOADS = {
    "99 levels": nested(99),
    "101 levels": nested(101),
    "975 levels": nested(975),
    "lists": b"[" * 400 + b"]" * 400,
    "without end": b"[" * 20_000,
    "a long number": b'{"n":' + b"9" * 4_301 + b"}",
    "a longer number": b'{"n":' + b"9" * 100_000 + b"}",
    "an envelope": b'{"detail-type":"reading","detail":' + nested(98) + b"}",
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_hostile_payload_is_hydrated_and_shown(properties: Path, kinesis: Any, s3: Any, name: str) -> None:
    one = failed(kinesis, PAYLOADS[name])
    assert not hydrate([one], dependencies(kinesis, s3)).failed
    story = told(properties, "show", one.sequence)
    shown = run(properties, "show", one.sequence)
    assert one.reason in shown
    text = PAYLOADS[name].decode()
    assert story["payload"] in (text, json.loads(text) if name in ("99 levels", "an envelope") else None)
    assert told(properties, "ls")["failures"][0]["sequence"] == one.sequence


def test_a_deeply_nested_payload_stored_as_json_is_readable(properties: Path, s3: Any) -> None:
    """Earlier versions stored failures without a depth limit."""
    one = dead_letter(Position("shardId-000000000000", "77"))
    stored = msgspec.structs.replace(failure(one, b"{}"), payload=msgspec.Raw(nested(600)))
    assert put(s3, BUCKET, stored)
    story = told(properties, "show", stored.key)
    assert story["payload"] == story["stored"]["payload"] == nested(600).decode()
    run(properties, "show", stored.key)


def test_an_aggregate_with_a_long_hash_key_is_shown(properties: Path, kinesis: Any, s3: Any) -> None:
    packed = RecordAggregator()
    packed.add_user_record("k", b"{}", "9" * 4_301)
    packed.add_user_record("k", b"\xff", "1")
    one = failed(kinesis, packed.clear_and_get().get_contents()[2])
    for sub in (0, 1):
        again = msgspec.structs.replace(one, sub=sub)
        assert not hydrate([again], dependencies(kinesis, s3)).failed
        assert (
            told(properties, "show", f"{one.sequence}.{sub}" if sub else one.sequence)["stored"]["sub"] == sub
        )


def test_hostile_payloads_are_planned(aws: Callable[[str], Any]) -> None:
    on.make_tables(aws)
    for number, data in enumerate(PAYLOADS.values()):
        on.park(aws("s3"), data, number)
    on.park(aws("s3"), samples.as_envelope("reading", on.reading(50)), 50)
    context = on.context(aws, on.Clock())
    deep = parse_repair({"steps": [{"do": "set", "field": ".".join("b" * 30), "value": {"c": 1}}]})
    for repair in (None, deep):
        plan = on.plan_of(context, on.Endpoint(), repair=repair)
        assert plan.count == len(PAYLOADS) + 1
        assert parse(to_text(plan)) == plan
