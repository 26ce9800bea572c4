"""Other types, names, ids, limits on sizes, and the texts of reasons."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from stream_app.errors import ConfigError
from stream_app.model.event import Event
from stream_app.model.record import Batch
from stream_app.testing import outcomes
from tests.unit.values import (
    DATE,
    EVENT,
    MILLIS,
    NOW,
    TIME,
    UUID,
    as_avro,
    as_json,
    decimal,
    outcome,
    parked,
    raw_avro,
    schema,
    stored,
    v,
)

# ---- Limits by the size of a record


def zigzag(number: int) -> bytes:
    number, found = (number << 1) ^ (number >> 63), b""
    while number > 127:
        found, number = found + bytes([number & 127 | 128]), number >> 7
    return found + bytes([number])


EMPTY = {"type": "record", "name": "Empty", "fields": []}


@pytest.mark.parametrize(
    ("avro", "tail"),
    [
        ({"type": "array", "items": "null"}, zigzag(100_000_000) + b"\0"),
        ({"type": "array", "items": EMPTY}, zigzag(10_000_000) + b"\0"),
        ({"type": "array", "items": "null"}, zigzag(-100_000_000) + b"\0\0"),
        ({"type": "array", "items": "null"}, zigzag(-(2**62)) + b"\0\0"),
        ({"type": "array", "items": "null"}, (zigzag(9_999) + b"") * 5 + b"\0"),
        ({"type": "map", "values": "null"}, zigzag(2**40) + b"\0"),
        (
            {"type": "array", "items": {"type": "array", "items": "null"}},
            zigzag(3) + (zigzag(9_000) + b"\0") * 3 + b"\0",
        ),
        ("string", zigzag(2**40)),
        ("bytes", zigzag(-1)),
        ("string", b"\xff" * 9),
        ("long", b"\xff" * 11),
        (["null", "long"], zigzag(2)),
        ("boolean", b"\2"),
    ],
)
@pytest.mark.parametrize("skipped", [False, True])
def test_counts_and_lengths_are_bounded_by_the_record(avro: Any, tail: bytes, skipped: bool) -> None:
    old = v(avro)
    schemas = [schema({"name": "w", "type": "int", "default": 1}), old] if skipped else [old]
    assert "field v" in parked(raw_avro(old, tail), *schemas)


def test_a_list_of_nulls_within_the_limit_is_stored() -> None:
    raw = v({"type": "array", "items": "null"})
    assert stored(raw_avro(raw, zigzag(3) + b"\0"), raw) == "[null,null,null]"


def test_truncated_avro_and_trailing_bytes_are_parked() -> None:
    raw = v("long")
    assert "the end of the record" in parked(raw_avro(raw, b""), raw)
    assert parked(raw_avro(raw, b"\2\2"), raw) == "expected the end of the record, found 1 more bytes"


# ---- Types


NODE = {
    "type": "record",
    "name": "Node",
    "fields": [{"name": "n", "type": "int"}, {"name": "next", "type": ["null", "Node"], "default": None}],
}
A, B = ({"type": "record", "name": name, "fields": [{"name": name.lower(), "type": "int"}]} for name in "AB")


@pytest.mark.parametrize(
    ("avro", "carried", "expected", "sent"),
    [
        ([A, B], ("B", {"b": 1}), '{"b":1}', {"b": 1}),
        (["string", "bytes"], b"\1", "AQ==", "AQ=="),
        ([MILLIS, "string"], "x", "x", "x"),
        ([{"type": "map", "values": "int"}, A], ("A", {"a": 1}), '{"a":1}', {"a": 1}),
    ],
)
def test_a_union_that_is_ambiguous_in_json_is_read_from_avro(
    avro: Any, carried: Any, expected: Any, sent: Any
) -> None:
    assert stored(as_avro(v(avro), v=carried), v(avro)) == expected
    assert "a value that matches only one branch (send Avro)" in parked(as_json(v=sent), v(avro))


def test_a_recursive_type_is_read_from_json_and_avro() -> None:
    value = {"n": 1, "next": {"n": 2, "next": None}}
    for payload in (as_avro(v(NODE), v=value), as_json(v={"n": 1, "next": {"n": 2}})):
        assert json.loads(stored(payload, v(NODE))) == value
    deep: dict[str, Any] = {"n": 1, "next": None}
    for _ in range(70):
        deep = {"n": 1, "next": deep}
    assert "nested levels" in parked(as_avro(v(NODE), v=deep), v(NODE))


@pytest.mark.parametrize(
    "sent",
    [
        f"{brace}00000000-0000-0000-0000-00000000000{end}"
        for brace, end in (("", "A"), ("{", "a}"), ("urn:uuid:", "a"))
    ]
    + ["0" * 31 + "a"],
)
@pytest.mark.parametrize("avro", [UUID, {"type": "fixed", "name": "F", "size": 16, "logicalType": "uuid"}])
def test_a_uuid_is_stored_in_canonical_form(sent: str, avro: Any) -> None:
    canonical = "00000000-0000-0000-0000-00000000000a"
    assert stored(as_json(v=sent), v(avro)) == canonical
    carried = sent if avro is UUID else bytes(15) + b"\x0a"
    assert stored(as_avro(v(avro), v=carried), v(avro)) == canonical
    assert "expected a UUID" in parked(as_json(v=f"'{sent}'"), v(avro))


def test_an_invalid_avro_name_is_rejected_with_a_remedy() -> None:
    with pytest.raises(ConfigError, match="field instance-id: Avro names consist of letters") as caught:
        outcomes([], event=EVENT, schemas=[schema({"name": "instance-id", "type": "int"})])
    assert "'instance-id' as an alias" in str(caught.value.problems[0])


# ---- Names


def test_fields_that_would_share_a_column_are_rejected_at_start() -> None:
    both = schema({"name": "shard", "type": "int"}, {"name": "t_shard", "type": "int"})
    with pytest.raises(ConfigError, match="fields 'shard' and 't_shard' would be stored in one column"):
        outcomes([], event=EVENT, schemas=[both])
    for name in ("shard", "t_shard"):
        raw = schema({"name": name, "type": "int"})
        assert outcome(as_json(**{name: 5}), raw)["values"] == {"dev": "a", "id": None, name: 5}


def test_calculated_columns_that_would_share_a_column_are_rejected() -> None:
    def calculate(batch: Batch) -> dict[str, Any]:
        return {"t_shard": batch["shard"] + 1}

    event = Event(name="t", key="dev", calculate=calculate)
    with pytest.raises(ConfigError, match="'t_shard', which would be stored in one column"):
        outcomes([], event=event, schemas=[schema({"name": "shard", "type": "int"})])


def test_a_field_with_the_prefix_of_a_pipeline_column_is_stored() -> None:
    raw = schema({"name": "explanation_code", "type": "int"})
    assert outcome(as_json(explanation_code=5), raw)["values"]["explanation_code"] == 5


def test_an_alias_names_one_field() -> None:
    fields: tuple[dict[str, Any], ...] = (
        {"name": "a", "type": "int", "aliases": ["b"]},
        {"name": "b", "type": "int"},
    )
    with pytest.raises(ConfigError, match="field 'a' has the alias 'b', which is also the name of a field"):
        outcomes([], event=EVENT, schemas=[schema(*fields)])
    fields = {"name": "a", "type": "int", "aliases": ["c"]}, {"name": "b", "type": "int", "aliases": ["c"]}
    with pytest.raises(ConfigError, match="fields 'a' and 'b' have the same alias 'c'"):
        outcomes([], event=EVENT, schemas=[schema(*fields)])


# ---- Identity


def test_an_empty_id_does_not_deduplicate() -> None:
    twice = [as_json(id="", v=1), as_json(id="", v=2), as_json(id="x", v=3), as_json(id="x", v=4)]
    found = outcomes(twice, event=EVENT, schemas=[v("int")], arrived=NOW)
    assert [item["status"] for (item,) in found] == ["stored", "stored", "stored", "repeated"]


@pytest.mark.parametrize("path", ["fast", "careful"])
def test_a_required_id_that_is_empty_is_missing(path: str) -> None:
    event = Event(name="t", key="dev", required=("id",))
    raw = v("int") if path == "fast" else v({"type": "array", "items": "int"})
    payload = as_json(id="", v=1 if path == "fast" else [1])
    assert outcome(payload, raw, event=event)["code"] == "FIELD_MISSING"


@pytest.mark.parametrize("required", [(), ("id",)])
def test_the_envelopes_id_replaces_an_empty_id(required: Sequence[str]) -> None:
    event = Event(name="t", key="dev", required=tuple(required))
    payload = json.dumps({"detail-type": "t", "id": "bus", "detail": {"dev": "a", "id": "", "v": 1}}).encode()
    assert outcome(payload, v("int"), event=event)["values"]["id"] == "bus"


@pytest.mark.parametrize("avro", ["int", "long"])
def test_nullable_integer_ids_are_compared_exactly(avro: str) -> None:
    event = Event(name="t", key="dev", id="v")
    large = 2**53 if avro == "long" else 2**30
    payloads = [
        as_json(v=large),
        as_json(v=large + 1),
        as_json(v=None),
        as_json(v=None),
        as_json(v=large + 1),
    ]
    raw = v(["null", avro], default=None)
    found = outcomes(payloads, event=event, schemas=[raw], arrived=NOW)
    assert [item["status"] for (item,) in found] == ["stored"] * 4 + ["repeated"]


# ---- Reasons


def test_reasons_have_the_path_and_never_the_value() -> None:
    raw = v({"type": "map", "values": {"type": "array", "items": A}})
    reason = parked(as_json(v={"secret": [{"a": 1}, {"a": "secret"}]}), raw)
    assert reason == "field v[entry 0][1].a: expected a whole number of 32 bits, found text"


def test_the_last_of_duplicate_names_wins() -> None:
    for first in ("1", '"x"', "1e400"):
        assert stored(b'{"event":"t","dev":"a","v":%s,"v":2}' % first.encode(), v("long")) == 2


def test_an_alias_of_a_nested_field_does_not_match_another_field() -> None:
    fields = [{"name": "a", "type": "int", "default": 0, "aliases": ["b", "c"]}, {"name": "b", "type": "int"}]
    raw = v({"type": "record", "name": "R", "fields": fields})
    assert json.loads(stored(as_json(v={"b": 5}), raw)) == {"a": 0, "b": 5}
    assert json.loads(stored(as_json(v={"b": 5, "c": 6}), raw)) == {"a": 6, "b": 5}


def test_a_number_with_many_digits_is_read_or_parked_in_every_type() -> None:
    for avro in (
        "double",
        "float",
        "int",
        "long",
        MILLIS,
        DATE,
        TIME,
        decimal(9, 2),
        ["null", "long", "double"],
    ):
        for number in ("9" * 250_000, "0." + "1" * 250_000, "1" + "0" * 250_000 + "e-250000"):
            found = outcome(b'{"event":"t","dev":"a","v":%s}' % number.encode(), v(avro))
            assert found["status"] == "stored" or "field v: " in found["reason"]


@pytest.mark.parametrize("size", [300_000])
def test_a_record_that_is_too_large_names_the_setting(size: int) -> None:
    found = outcome(as_json(v="x" * size), v("string"))
    assert (found["code"], "app.max_record_bytes is 262144" in found["reason"]) == ("TOO_LARGE", True)
