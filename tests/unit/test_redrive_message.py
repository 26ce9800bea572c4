"""Redriven messages keep their content, record their lineage and are read by the pipeline as before."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.model.event import Event
from stream_app.model.record import Record
from stream_app.pipeline.flow import process
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.recovery.redrive.message import (
    Lineage,
    Message,
    apply_repair,
    as_envelope,
    device,
    event_id,
    extra_resources,
    original_form,
    read,
    with_id,
)
from stream_app.recovery.repair.file import parse_repair
from stream_app.recovery.repair.steps import Unrepaired
from tests import samples

REGISTRY = samples.registry()
NOW = datetime(2026, 1, 1, tzinfo=UTC)
LINEAGES = st.builds(Lineage, st.text(min_size=1, max_size=40), st.integers(1, 99))
FIELDS = st.fixed_dictionaries(
    {
        "id": st.none() | st.text(min_size=1, max_size=5),
        "device": st.sampled_from(["A", "B"]),
        "time": st.integers(samples.START, samples.START + samples.HOUR),
        "value": st.none() | st.floats(0, 90),
        "level": st.none() | st.integers(0, 9),
        "note": st.none() | st.text(max_size=5),
        "sent_at": st.none(),
    }
)


def seen(data: bytes) -> Any:
    """What the pipeline reads in a record, without what the envelope's id decides."""
    record = Record(data, "A", "1", samples.START)
    result = process([record], REGISTRY, ShardState(samples.EVENTS, 4), samples.MAX_BYTES)
    assert not result.failed
    batch = result.passed["reading"]
    return {
        name: batch[name].tolist() for name in samples.SCHEMAS["reading"] and batch.columns if name != "id"
    }


def message(data: bytes) -> Message:
    found = read(data, REGISTRY)
    assert found is not None
    return found


@given(FIELDS, st.sampled_from(sorted(set(samples.FORMS))), LINEAGES)
def test_the_pipeline_reads_the_same_fields_in_the_envelope_for_every_input_form(
    fields: dict[str, Any], form: str, lineage: Lineage
) -> None:
    data = samples.encoded("reading", fields, form)
    envelope = as_envelope(message(data), "A", lineage, id="token", now=NOW, region="us-east-1")
    assert repr(seen(envelope)) == repr(seen(data))
    assert repr(seen(original_form(message(data)))) == repr(seen(data))


@given(FIELDS, st.sampled_from(sorted(set(samples.FORMS))), LINEAGES, LINEAGES)
def test_the_last_lineage_takes_precedence(
    fields: dict[str, Any], form: str, first: Lineage, second: Lineage
) -> None:
    data = samples.encoded("reading", fields, form)
    assert message(data).lineage is None
    once = as_envelope(message(data), "A", first, id="one", now=NOW, region="us-east-1")
    twice = as_envelope(message(once), "B", second, id="two", now=NOW, region="us-east-1")
    assert message(once).lineage == first
    assert message(twice).lineage == second
    assert message(twice).resources == ["B", second.resource]
    # An envelope's own id, which the pipeline may know it by, stays.
    assert message(twice).envelope_id == message(once).envelope_id
    assert extra_resources(message(once), second) == [second.resource]


def test_an_envelope_keeps_its_other_members() -> None:
    came = {
        "version": "0",
        "id": "e-1",
        "detail-type": "reading",
        "source": "stream-app.devices.new",
        "account": "42",
        "time": "2020-01-01T00:00:00Z",
        "region": "eu-west-1",
        "resources": ["A", "arn:of:something", Lineage("old", 1).resource],
        "detail": {"device": "A"},
        "replay-name": "r",
    }
    lineage = Lineage("failures/x", 2)
    sent = json.loads(
        as_envelope(message(json.dumps(came).encode()), "A", lineage, id="new", now=NOW, region="r")
    )
    assert sent == {**came, "resources": ["A", "arn:of:something", lineage.resource]}


@given(st.binary(max_size=60))
def test_arbitrary_bytes_never_raise(data: bytes) -> None:
    found = read(data, REGISTRY)
    assert found is None or isinstance(found.detail, dict)


@pytest.mark.parametrize(
    "data",
    [
        *samples.GARBAGE[:4],
        gzip.compress(b"{}", mtime=0)[:-3],
        gzip.compress(b"{}", mtime=0) + b"x",
        gzip.compress(b" " * (20 * 2**20) + b"{}", mtime=0),  # a bomb is not unpacked
        samples.as_avro({"device": "A", "time": 1}, samples.schema("stranger")),
        samples.as_avro({"device": "A", "time": 1}, samples.SCHEMAS["reading"])[:-1],
        b'{"a": 1e999}',
        b'"text"',
        b"[" * 5_000,
    ],
)
def test_unreadable_bytes_have_no_message(data: bytes) -> None:
    assert read(data, REGISTRY) is None


@given(FIELDS, LINEAGES)
def test_an_id_comes_from_the_device_the_envelope_or_a_deterministic_default(
    fields: dict[str, Any], lineage: Lineage
) -> None:
    token = str(lineage)
    bare = with_id(message(samples.as_json("reading", fields)), REGISTRY, token)
    enveloped = with_id(message(samples.as_envelope("reading", fields, "e-7")), REGISTRY, token)
    assert event_id(bare, REGISTRY) == (fields["id"] or token)
    assert event_id(enveloped, REGISTRY) == (fields["id"] or "e-7")
    if fields["id"] is not None:
        assert bare.detail["id"] == fields["id"]


def test_a_message_of_an_unknown_type_has_neither_id_nor_device() -> None:
    found = message(b'{"event": "prototype", "id": "1", "device": "A"}')
    assert event_id(found, REGISTRY) is None
    assert with_id(found, REGISTRY, "token") is found
    assert device(found, REGISTRY, "partition") == "partition"
    assert device(message(b'{"event": "reading", "device": "A"}'), REGISTRY, "partition") == "A"
    assert device(message(b'{"event": "reading", "device": ["A"]}'), REGISTRY, "partition") == "partition"


def test_a_repair_can_change_the_event_type() -> None:
    repair = parse_repair(
        {
            "when": [{"field": "$event", "is": "equals", "value": "prototype"}],
            "steps": [{"do": "set", "field": "$event", "value": "reading"}, {"do": "drop", "field": "junk"}],
        }
    )
    found = apply_repair(message(b'{"event": "prototype", "device": "A", "junk": 1}'), repair)
    assert found == Message("reading", {"device": "A"})
    assert apply_repair(message(b'{"event": "reading", "device": "A"}'), repair) is None
    wrong = parse_repair({"steps": [{"do": "set", "field": "$event", "value": 5}]})
    assert apply_repair(message(b'{"event": "reading"}'), wrong) == Unrepaired("$event is not a text")


def test_a_field_named_event_is_kept_where_the_type_declares_it() -> None:
    raw = samples.schema("meeting")
    raw["fields"].append({"name": "event", "type": "string"})
    registry = Registry.of([Event(name="meeting", key="device")], {"meeting": [raw]})
    plain = {"event": "meeting", "device": "A"}
    found = read(msgspec.json.encode(plain), registry)
    assert found is not None
    assert found.detail == plain
    assert json.loads(original_form(found)) == plain
