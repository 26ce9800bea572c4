"""Bounded Avro decoding: valid bodies decode as with fastavro, and the number of values is limited."""

from __future__ import annotations

import io
import json
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.event_loading import schema_files
from stream_app.recovery.bounded_avro import MAX_VALUES, decoded_avro
from tests import samples

NODE = {"type": "record", "name": "Node", "fields": [
    {"name": "next", "type": ["null", "Node"]},
    {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}},
    {"name": "more", "type": {"type": "map", "values": {"type": "array", "items": ["int", "string"]}}},
    {"name": "raw", "type": {"type": "fixed", "name": "Raw", "size": 2}},
    {"name": "again", "type": ["null", "Kind"]},
]}  # fmt: skip


def parsed(schema: Any) -> Any:
    return fastavro.parse_schema(json.loads(json.dumps(schema)))


def written(schema: Any, value: Any) -> bytes:
    body = io.BytesIO()
    fastavro.schemaless_writer(body, schema, value)
    return body.getvalue()


@given(st.recursive(st.none(), lambda inner: st.fixed_dictionaries({
    "next": inner, "kind": st.sampled_from("AB"), "raw": st.just(b"xy"), "again": st.none() | st.just("A"),
    "more": st.dictionaries(st.text(max_size=3), st.lists(st.integers(-9, 9) | st.text(max_size=3), max_size=3),
                            max_size=2),
}), max_leaves=4).filter(lambda value: value is not None))  # fmt: skip
def test_a_valid_body_is_decoded_as_by_fastavro(value: Any) -> None:
    schema = parsed(NODE)
    found = decoded_avro(written(schema, value), schema)
    assert found["kind"] == value["kind"]
    assert found["more"] == value["more"]
    assert (found["next"] is None) == (value["next"] is None)


def test_the_shipped_schemas_are_supported() -> None:
    for path in schema_files("air_quality"):
        schema = parsed(json.loads(path.read_text(encoding="utf-8")))
        data = samples.as_avro({"id": "1", "station": "s", "time": samples.START, "pm25": 3.5}, schema)
        assert decoded_avro(data[10:], schema)["id"] == "1"


def test_a_small_body_cannot_produce_many_values() -> None:
    array = parsed({"type": "record", "name": "R", "fields": [
        {"name": "a", "type": {"type": "array", "items": "null"}}
    ]})  # fmt: skip
    assert decoded_avro(b"\x04\x00", array) == {"a": [None, None]}
    with pytest.raises(ValueError, match="cannot read the Avro body"):
        decoded_avro(b"\xfe\xff\xff\xff\xff\x0f\x00", array)
    block = b"\xfe\x0f" * (MAX_VALUES // 1_023 + 1)  # blocks of 1,023 items
    with pytest.raises(ValueError, match="cannot read the Avro body"):
        decoded_avro(block + b"\x00", array)
    node = parsed(NODE)
    with pytest.raises(ValueError, match="cannot read the Avro body"):
        decoded_avro(b"\x02" * 100_000, node)


@given(st.binary(max_size=40))
def test_arbitrary_bytes_are_decoded_or_rejected(data: bytes) -> None:
    schema = parsed(NODE)
    try:
        decoded_avro(data, schema)
    except ValueError:
        return
