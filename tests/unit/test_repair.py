"""Repairs: their steps, the errors they report, and that they never modify their input."""

from __future__ import annotations

import copy
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.errors import ConfigError
from stream_app.recovery.repair import units
from stream_app.recovery.repair.file import Repair, parse_repair, read_repair
from stream_app.recovery.repair.steps import Unrepaired, matches, repaired

NAMES = st.sampled_from(["pm25", "temp", "site", "note", "a.b", "site.height"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
)
DOCUMENTS = st.dictionaries(
    st.sampled_from(["pm25", "temp", "site", "note", "a", "$event"]), VALUES, max_size=5
)
CASTS = st.sampled_from(["text", "number", "integer", "boolean", "time"])
STEPS = st.one_of(
    st.fixed_dictionaries({"do": st.just("set"), "field": NAMES, "value": VALUES}),
    st.fixed_dictionaries({"do": st.just("drop"), "field": NAMES}),
    st.fixed_dictionaries({"do": st.just("rename"), "field": NAMES, "to": st.sampled_from(["new", "x.y"])}),
    st.fixed_dictionaries({"do": st.just("cast"), "field": NAMES, "to": CASTS}),
    st.fixed_dictionaries(
        {"do": st.just("convert"), "field": NAMES, "from": st.just("°F"), "to": st.sampled_from(["K", "°C"])}
    ),
)
REPAIRS = st.fixed_dictionaries({"steps": st.lists(STEPS, min_size=1, max_size=4)}).map(parse_repair)


def steps(*some: dict[str, Any]) -> Repair:
    return parse_repair({"steps": list(some)})


def one(step: dict[str, Any], value: Any) -> Any:
    """Return the result of a step for one field's value."""
    found = repaired({"f": value}, steps({"field": "f", **step}))
    return found if isinstance(found, Unrepaired) else found.get("f", "absent")


@given(DOCUMENTS, REPAIRS)
def test_a_repair_does_not_modify_its_input(document: dict[str, Any], repair: Repair) -> None:
    before = copy.deepcopy(document)
    found = repaired(document, repair)
    assert document == before
    if not isinstance(found, Unrepaired):
        msgspec.json.encode(found)  # what comes out can be sent


@given(REPAIRS)
def test_a_repair_round_trips_through_a_plan(repair: Repair) -> None:
    carried = msgspec.json.encode(repair)
    assert msgspec.json.decode(carried, type=Repair) == repair
    assert parse_repair(json.loads(carried)) == repair


@given(DOCUMENTS, st.sampled_from(["pm25", "temp", "note"]))
def test_renaming_a_field_twice_restores_the_record(document: dict[str, Any], field: str) -> None:
    there, back = (
        {"do": "rename", "field": field, "to": "other"},
        {"do": "rename", "field": "other", "to": field},
    )
    assert repaired(document, steps(there, back)) == document


@given(DOCUMENTS, STEPS.filter(lambda step: step["do"] != "set"))
def test_a_step_on_an_absent_field_does_nothing(document: dict[str, Any], step: dict[str, Any]) -> None:
    assert repaired(document, steps({**step, "field": "not.there"})) == document


@given(DOCUMENTS, NAMES, VALUES)
def test_a_set_field_is_present_and_a_dropped_one_absent(
    document: dict[str, Any], field: str, value: Any
) -> None:
    put = repaired(document, steps({"do": "set", "field": field, "value": value}))
    if isinstance(put, Unrepaired):  # something that is no object stands on the way
        assert not isinstance(document[field.split(".", maxsplit=1)[0]], dict)
        return
    assert matches(
        put,
        parse_repair({"when": [{"field": field, "is": "present"}], "steps": [{"do": "drop", "field": "x"}]}),
    )
    gone = repaired(put, steps({"do": "drop", "field": field}))
    assert not isinstance(gone, Unrepaired)
    assert not matches(
        gone,
        parse_repair({"when": [{"field": field, "is": "present"}], "steps": [{"do": "drop", "field": "x"}]}),
    )


@given(SCALARS, CASTS)
def test_casts_are_idempotent(value: Any, to: str) -> None:
    found = one({"do": "cast", "to": to}, value)
    if isinstance(found, Unrepaired) or found is None:
        assert value is not None or found is None
        return
    kinds: dict[str, Any] = {
        "text": str,
        "number": (int, float),
        "integer": int,
        "boolean": bool,
        "time": str,
    }
    assert isinstance(found, kinds[to])
    assert one({"do": "cast", "to": to}, found) == found


@given(st.text(min_size=5, max_size=30).filter(lambda text: not text.strip().isdigit()))
def test_the_reason_of_a_failed_step_omits_the_value(value: str) -> None:
    for step in ({"do": "convert", "from": "°F", "to": "K"}, {"do": "cast", "to": "boolean"}):
        found = one(step, value)
        assert not isinstance(found, Unrepaired) or value not in found.why


@pytest.mark.parametrize(
    ("step", "value", "wanted"),
    [
        ({"do": "cast", "to": "number"}, " 12.5 ", 12.5),
        ({"do": "cast", "to": "integer"}, "9007199254740993", 9007199254740993),
        ({"do": "cast", "to": "integer"}, 3.0, 3),
        ({"do": "cast", "to": "boolean"}, "No", False),
        ({"do": "cast", "to": "text"}, True, "true"),
        ({"do": "cast", "to": "time", "from": "s"}, 1_480_550_400, "2016-12-01T00:00:00.000Z"),
        ({"do": "cast", "to": "time", "from": "ms"}, "1480550400250", "2016-12-01T00:00:00.250Z"),
        ({"do": "cast", "to": "time"}, "2016-12-01T08:00:00+08:00", "2016-12-01T00:00:00.000Z"),
        ({"do": "cast", "to": "time", "zone": "+08:00"}, "2016-12-01 08:00", "2016-12-01T00:00:00.000Z"),
        ({"do": "convert", "from": "F", "to": "C"}, 212, 100.0),
        ({"do": "convert", "from": "ug/m3", "to": "mg/m³"}, 1500, 1.5),
        ({"do": "convert", "from": "atm", "to": "hPa"}, 1, 1013.25),
        ({"do": "convert", "from": "km/h", "to": "m/s"}, 36, 10.0),
        ({"do": "convert", "from": "km/h", "to": "m/s"}, None, None),
    ],
)
def test_examples(step: dict[str, Any], value: Any, wanted: Any) -> None:
    found = one(step, value)
    assert found == wanted
    assert type(found) is type(wanted)


@pytest.mark.parametrize(
    ("step", "value"),
    [
        ({"do": "cast", "to": "number"}, "nan"),
        ({"do": "cast", "to": "number"}, True),
        ({"do": "cast", "to": "integer"}, 2.5),
        ({"do": "cast", "to": "boolean"}, 2),
        ({"do": "cast", "to": "text"}, [1]),
        ({"do": "cast", "to": "time"}, "2016-12-01T08:00:00"),
        ({"do": "cast", "to": "time", "from": "s"}, 1e18),
        ({"do": "cast", "to": "time"}, "0001-01-01T00:00:00+14:00"),
        ({"do": "convert", "from": "F", "to": "C"}, "212"),
        ({"do": "convert", "from": "F", "to": "C"}, 10**400),
    ],
)
def test_impossible_steps_are_reported(step: dict[str, Any], value: Any) -> None:
    found = one(step, value)
    assert isinstance(found, Unrepaired)
    assert "step 1, field f" in found.why


@given(st.sampled_from(units.unit_names()), st.sampled_from(units.unit_names()), st.floats(-1e9, 1e9))
def test_unit_conversions_are_reversible(given_: str, wanted: str, value: float) -> None:
    first, second = units.find_unit(given_), units.find_unit(wanted)
    assert first is not None
    assert second is not None
    if first.quantity != second.quantity:
        with pytest.raises(ValueError, match="cannot convert"):
            units.convert(value, first, second)
        return
    there = units.convert(value, first, second)
    # An offset of some hundred degrees swallows what is smaller than its last digit.
    assert math.isclose(units.convert(there, second, first), value, rel_tol=1e-12, abs_tol=1e-9)
    assert units.convert(value, first, first) == value


@pytest.mark.parametrize(
    ("condition", "holds", "fails"),
    [
        ({"is": "absent"}, ["absent"], [None, 0]),
        ({"is": "present"}, [None, 0], ["absent"]),
        ({"is": "null"}, [None], ["absent", 0, ""]),
        ({"is": "equals", "value": 1}, [1, 1.0], [True, "1", None]),
        ({"is": "equals", "value": {"a": [True]}}, [{"a": [True]}], [{"a": [1, 2]}]),
        ({"is": "in", "values": ["XYZ", None]}, ["XYZ", None], ["xyz", "absent"]),
        ({"is": "below", "value": 0}, [-1, -0.5], [0, False, "-1", None]),
        ({"is": "above", "value": 0.5}, [1, 0.75], [0.5, True, "1"]),
        ({"is": "matches", "pattern": "[A-Z]+"}, ["ABC"], ["ABCd", 1]),
        ({"is": "type", "type": "number"}, [1, 1.5], [True, "1"]),
        ({"is": "type", "type": "list"}, [[]], [{}]),
    ],
)
def test_conditions(condition: dict[str, Any], holds: list[Any], fails: list[Any]) -> None:
    repair = parse_repair({"when": [{"field": "f", **condition}], "steps": [{"do": "drop", "field": "f"}]})
    for values, wanted in ((holds, True), (fails, False)):
        for value in values:
            assert matches({} if value == "absent" else {"f": value}, repair) is wanted, value


def test_yaml_and_json_files_give_the_same_repair(tmp_path: Path) -> None:
    yaml, plain = tmp_path / "repair.yaml", tmp_path / "repair.json"
    yaml.write_text(
        "name: no such wind\n"
        "when:\n"
        "  - {field: $event, is: equals, value: air_quality}\n"
        "  - {field: time, is: equals, value: 2016-12-01T00:00:00Z}\n"
        "steps:\n"
        "  - {do: set, field: wind_direction, value: null}\n"
        "  - {do: convert, field: temperature, from: °F, to: °C}\n",
        encoding="utf-8",
    )
    when = [
        {"field": "$event", "is": "equals", "value": "air_quality"},
        {
            "field": "time",
            "is": "equals",
            "value": datetime(2016, 12, 1, tzinfo=UTC).isoformat().replace("+00:00", "Z"),
        },
    ]
    made = [
        {"do": "set", "field": "wind_direction", "value": None},
        {"do": "convert", "field": "temperature", "from": "°F", "to": "°C"},
    ]
    plain.write_text(json.dumps({"name": "no such wind", "when": when, "steps": made}), encoding="utf-8")
    assert read_repair(yaml) == read_repair(plain)


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ([], "Expected `object`"),
        ({"steps": []}, "no steps"),
        ({"steps": [{"do": "fly", "field": "f"}]}, "Invalid value 'fly'"),
        ({"steps": [{"do": "drop", "field": "f", "value": 1}]}, "unknown field"),
        ({"steps": [{"do": "drop", "field": "a..b"}]}, "field name is empty"),
        ({"steps": [{"do": "convert", "field": "f", "from": "ells", "to": "m"}]}, "unknown unit"),
        ({"steps": [{"do": "convert", "field": "f", "from": "K", "to": "m"}]}, "cannot be converted"),
        ({"steps": [{"do": "cast", "field": "f", "to": "time", "zone": "UTC"}]}, "is not an offset"),
        ({"steps": [{"do": "rename", "field": "a", "to": "a.b"}]}, "into itself"),
        ({"steps": [{"do": "set", "field": "f", "value": "\ud800"}]}, "is not valid Unicode"),
        (
            {
                "when": [{"field": "f", "is": "matches", "pattern": "("}],
                "steps": [{"do": "drop", "field": "f"}],
            },
            "is not a regular expression",
        ),
    ],
)
def test_an_invalid_repair_is_refused(document: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_repair(document)


def test_all_problems_are_reported_together() -> None:
    wrong = {
        "when": [{"field": "f", "is": "matches", "pattern": "("}],
        "steps": [{"do": "convert", "field": "f", "from": "ells", "to": "m"}, {"do": "drop", "field": ""}],
    }
    with pytest.raises(ConfigError) as raised:
        parse_repair(wrong)
    told = [problem.what for problem in raised.value.problems]
    assert [text.split(": ")[1] for text in told] == ["condition 1", "step 1", "step 2"]


@pytest.mark.parametrize("text", ["steps: [", "\t- a", "a: b: c"])
def test_a_file_that_cannot_be_parsed_is_reported(text: str, tmp_path: Path) -> None:
    file = tmp_path / "repair.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"repair\.yaml cannot be parsed"):
        read_repair(file)
    with pytest.raises(ConfigError, match="cannot read"):
        read_repair(tmp_path / "missing.json")
