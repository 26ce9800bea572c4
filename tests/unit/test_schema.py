"""Schemas are compiled at start, and all problems of the declarations are reported together."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import fastavro
import pytest

from stream_app.errors import ConfigError, Problem
from stream_app.model.event import Event, Window
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.values.schema import (
    BOOLEAN,
    FLOAT,
    IDENTITY,
    INTEGER,
    OBJECT,
    SINGLE,
    TEXT,
    TIME_MS,
    TIME_US,
    compile_schema,
)
from tests import avro
from tests.samples import READING, SCHEMAS, STEP, Drift, as_avro


def record_of(*fields: Mapping[str, Any], name: str = "thing") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields)}


def field(avro_type: Any, **more: Any) -> dict[str, Any]:
    return {"name": "x", "type": avro_type, **more}


def problems(event: Event, *schemas: Any) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        Registry.of([event], {event.name: schemas})
    assert all(problem.hint for problem in caught.value.problems)
    return list(caught.value.problems)


KEY = {"name": "key", "type": "string"}
THING = Event(name="thing", key="key")


def test_the_kind_of_a_column_follows_from_its_type() -> None:
    kinds = {item.name: item.kind for item in compile_schema(avro.SCHEMA, "every").fields}
    for name, kind in {
        "flag": BOOLEAN,
        "small": INTEGER,
        "large": INTEGER,
        "single": SINGLE,
        "double": FLOAT,
        "text": TEXT,
        "choice": TEXT,
        "identity": IDENTITY,
        "millis": TIME_MS,
        "micros": TIME_US,
        "unheard_of": FLOAT,
        "wordy": TEXT,
    }.items():
        assert kinds[name] == kind
        assert kinds.get(f"maybe_{name}", kind) == kind
    assert {kinds[name] for name in ("raw", "four", "many", "named", "place", "either", "day", "price")} == {
        OBJECT
    }


def test_the_fingerprint_is_that_of_the_single_object_encoding() -> None:
    schema = compile_schema(SCHEMAS["reading"], "reading")
    assert as_avro({"device": "a", "time": 0}, SCHEMAS["reading"])[2:10].hex() == schema.fingerprint
    # The Avro specification's CRC-64 of the schema "int".
    assert fastavro.schema.fingerprint('"int"', "CRC-64-AVRO") == "8f5c393f1ad57572"


def test_documentation_and_defaults_do_not_change_the_fingerprint() -> None:
    bare, told = record_of(KEY, field("int")), record_of(KEY, field("int", doc="much", default=3))
    assert compile_schema(bare, "a").fingerprint == compile_schema(told, "b").fingerprint


@pytest.mark.parametrize(
    "raw",
    [
        "string",
        5,
        None,
        [],
        ["null"],
        {},
        {"type": "record"},
        {"type": "record", "name": "thing", "fields": 5},
        {"type": "record", "name": "thing", "fields": [5]},
        {"type": "enum", "name": "thing", "symbols": ["A"]},
        record_of(KEY, KEY),
        record_of(KEY, {"name": "x"}),
        record_of(KEY, field("number")),
        record_of(KEY, field([])),
        record_of(KEY, field("int", default="three")),
        record_of(KEY, field("int", default=None)),
        record_of(KEY, field({"type": "array"})),
        record_of(KEY, field({"type": "int", "logicalType": "date"}, default=10**7)),
        record_of(KEY, field(["null", {"type": "record", "name": "thing", "fields": []}])),
    ],
)
def test_an_invalid_schema_is_named(raw: Any) -> None:
    (problem,) = problems(THING, raw)
    assert problem.what.startswith("schemas/thing ")


def test_python_keywords_are_valid_field_names() -> None:
    names = ("class", "None", "self", "print", "_hidden")
    schema = record_of(KEY, *({"name": name, "type": "int", "aliases": [f"{name}_old"]} for name in names))
    codec = Registry.of([THING], {"thing": [schema]}).codecs["thing"]
    item = codec.json.read(b'{"key":"k","class":1,"None":2,"self":3,"print":4,"_hidden":5}', None)
    assert item == ["k", 1, 2, 3, 4, 5]


def test_a_named_type_may_be_referenced_within_its_namespace() -> None:
    place = {**avro.PLACE, "namespace": "far.away"}
    schema = record_of(KEY, {"name": "a", "type": place}, {"name": "b", "type": ["null", "far.away.Place"]})
    codec = Registry.of([THING], {"thing": [schema]}).codecs["thing"]
    read = codec.json.read(b'{"key":"k","a":{"name":"n"},"b":{"name":"m"}}', None)
    assert [read[1]["name"], read[2]["name"]] == ["n", "m"]


# ---- An event and its schema


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"key": "nobody"}, "key names 'nobody'"),
        ({"required": ("device", "time", "lost")}, "required names 'lost'"),
        ({"features": ("value", "speed")}, "features names 'speed'"),
        ({"previous": ("value", "speed")}, "previous names 'speed'"),
        ({"sent": "gone"}, "sent names 'gone'"),
        ({"id": "number"}, "id names 'number'"),
        ({"window": Window(("speed",), 3)}, "window names 'speed'"),
        ({"window": Window(("value",), 3, time="when")}, "window names 'when'"),
        ({"key": "value"}, "key names 'value', which is not text"),
        ({"key": "note"}, "key 'note' may be absent"),
        ({"id": "value"}, "id names 'value', which is not text, a whole number or a time"),
        ({"features": ("note",)}, "features names 'note', which is not a number"),
        ({"features": ("time",)}, "features names 'time', which is not a number"),
        ({"sent": "note"}, "sent names 'note', which is not a timestamp"),
        ({"window": Window(("note",), 3)}, "window names 'note', which is not a number"),
        (
            {"window": Window(("value",), 3, time="level")},
            "window's time names 'level', which is not a timestamp",
        ),
        ({"required": ("device",)}, "its window's time is not required"),
        ({"window": Window(("value",), 0)}, "its window is empty"),
        ({"window": Window((), 3)}, "its window is empty"),
        ({"window": Window(("value",), 3, step=dt.timedelta(0))}, "its window is empty"),
        ({"detector": Drift, "features": ()}, "a detector without features"),
    ],
)
def test_declared_fields_must_be_in_the_schema(change: dict[str, Any], words: str) -> None:
    found = [problem.what for problem in problems(replace(READING, **change), SCHEMAS["reading"])]
    assert any(words in what and what.startswith("event 'reading': ") for what in found), found


@pytest.mark.parametrize("name", ["arrived", "score", "anomaly"])
def test_a_field_must_not_have_the_name_of_a_pipeline_column(name: str) -> None:
    (problem,) = problems(THING, record_of(KEY, {"name": name, "type": "double"}))
    assert name in problem.what


def test_an_event_without_an_id_needs_no_id_field() -> None:
    Registry.of([THING], {"thing": [record_of(KEY)]})


def test_two_events_must_not_share_a_fingerprint() -> None:
    other = replace(READING, name="other")
    with pytest.raises(ConfigError, match="schemas/other has the same fingerprint as event 'reading'"):
        Registry.of([READING, other], {"reading": [SCHEMAS["reading"]], "other": [SCHEMAS["reading"]]})


def test_all_problems_of_all_events_are_reported_together() -> None:
    wrong = replace(READING, key="nobody", sent="note", features=("speed",))
    broken = replace(STEP, name="broken")
    no_schemas: Any = {"broken": [5], "step": ["x", 5]}
    with pytest.raises(ConfigError) as caught:
        Registry.of([wrong, broken, STEP], {"reading": [SCHEMAS["reading"]], **no_schemas})
    found = "\n".join(problem.what for problem in caught.value.problems)
    for words in ("'nobody'", "sent names 'note'", "'speed'", "schemas/broken", "schemas/step"):
        assert words in found


def test_writers_are_found_by_fingerprint_and_the_current_version_wins() -> None:
    old, same = record_of(KEY, field("int")), record_of(KEY, field("long", default=1))
    current = record_of(KEY, field("long"))
    registry = Registry.of([THING], {"thing": [current, same, old]})
    assert len(registry.writers) == 2
    schema = registry.codecs["thing"].schema
    assert registry.writers[schema.fingerprint] == ("thing", schema)
