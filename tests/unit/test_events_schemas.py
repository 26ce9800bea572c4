"""The schemas of the shipped events are valid, documented and compatible with earlier versions."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly.detector import Detector
from stream_app.event_loading import discover, schema_files
from stream_app.events import parcel
from stream_app.events.air_quality import event as air_quality
from stream_app.model.event import Event

EVENTS = [air_quality.EVENT, parcel.EVENT]
every_event = pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
WHEN = datetime(2016, 12, 1, tzinfo=UTC)
REQUIRED = {"air_quality": {"id", "station", "time"}, "parcel": {"id", "parcel", "status", "time"}}


def schema(event: Event, version: int = 0) -> dict[str, Any]:
    loaded = json.loads(schema_files(event.name)[version].read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def through(record: dict[str, Any], writer: dict[str, Any], reader: dict[str, Any]) -> Any:
    """Write the record with one schema and read it with another, in plain Avro binary."""
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, writer, record)
    buffer.seek(0)
    return fastavro.schemaless_reader(buffer, writer, reader)


def test_the_shipped_events_are_discovered() -> None:
    found = discover()
    assert {name: found.get(name) for name in ("air_quality", "parcel")} == {e.name: e for e in EVENTS}


@every_event
def test_every_version_is_valid_and_every_field_is_documented(event: Event) -> None:
    for path in schema_files(event.name):
        parsed = fastavro.parse_schema(json.loads(path.read_text(encoding="utf-8")))
        assert isinstance(parsed, dict)
        assert parsed["doc"]
        assert all(field["doc"] and field["unit"] for field in parsed["fields"])


@every_event
def test_exactly_the_required_fields_are_not_nullable(event: Event) -> None:
    fields = schema(event)["fields"]
    nullable = {f["name"] for f in fields if isinstance(f["type"], list) and f["type"][0] == "null"}
    assert {f["name"] for f in fields} - nullable == set(event.required) == REQUIRED[event.name]
    assert all(f["default"] is None for f in fields if f["name"] in nullable)


@every_event
def test_fields_of_an_event_are_in_its_schema(event: Event) -> None:
    window = event.window.fields if event.window else ()
    named = {event.key, event.id, event.sent, *event.required, *event.features, *event.previous, *window}
    assert named <= {field["name"] for field in schema(event)["fields"]}


def test_every_number_with_a_unit_has_a_range() -> None:
    numbers = {f["name"]: f["unit"] for f in schema(air_quality.EVENT)["fields"] if "double" in f["type"]}
    assert numbers == {name: found.unit for name, found in air_quality.RANGES.items()}


def test_the_detector_implements_the_protocol() -> None:
    assert air_quality.EVENT.detector is not None
    assert isinstance(air_quality.EVENT.detector(air_quality.EVENT.features), Detector)


numbers_or_null = st.none() | st.floats(allow_nan=False, allow_infinity=False)


@given(st.data())
@settings(deadline=None)
def test_a_reading_of_version_1_is_resolved_to_the_current_version(data: st.DataObject) -> None:
    old, new = schema(air_quality.EVENT, 1), schema(air_quality.EVENT)
    values = {f["name"]: data.draw(numbers_or_null) for f in old["fields"] if "double" in f["type"]}
    record = {"id": "A/2016-12-01T00", "station": "A", "time": WHEN, **values}
    found = through(record, old, new)
    record["temperature"] = record.pop("temp")
    assert found == record | {"wind_speed": None, "wind_direction": None, "sent_at": None}


def test_a_record_with_only_the_required_fields_is_valid() -> None:
    for event in EVENTS:
        current = schema(event)
        record = {name: WHEN if name == "time" else name for name in event.required}
        found = through(record, current, current)
        assert found.items() >= record.items()
        assert found.keys() == {field["name"] for field in current["fields"]}
