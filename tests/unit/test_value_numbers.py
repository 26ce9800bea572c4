"""Numbers and decimals are read exactly or parked, in time proportional to their text."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from stream_app.errors import ConfigError
from stream_app.model.event import Event
from stream_app.model.record import Batch
from stream_app.testing import outcomes
from tests.unit.values import (
    EVENT,
    NOW,
    as_avro,
    as_json,
    decimal,
    outcome,
    parked,
    schema,
    stored,
    v,
)

# ---- Decimals


@pytest.mark.parametrize(
    "number",
    [
        "1e1000000",
        '"1e1000000"',
        "1e999999999999",
        '"1e-999999999"',
        "9" * 200_000,
        f'"{"9" * 200_000}"',
        '"1e8"',
        '"1e100000"',
        "12345678.9",
        '"12.345"',
        "0.001",
        '"many"',
        '"NaN"',
        '"Infinity"',
        '"1_0"',
        '" 1"',
        '""',
    ],
)
def test_a_decimal_beyond_its_precision_is_parked_quickly(number: str) -> None:
    reason = parked(b'{"event":"t","dev":"a","v":%s}' % number.encode(), v(decimal(9, 2)))
    assert reason.startswith(
        "field v: expected a decimal of at most 9 digits, 2 of them after the point, found "
    )
    assert len(reason) < 200


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("1", "1.00"),
        ("-0.10", "-0.10"),
        ('"1e6"', "1000000.00"),
        ("9999999.99", "9999999.99"),
        ("0.07", "0.07"),
        ("1.10e1", "11.00"),
        ("0e999999999", "0.00"),
        ('"0000000000000012.5000"', "12.50"),
        ("90071992.5e-1", "9007199.25"),
    ],
)
def test_a_decimal_is_stored_with_its_digits(number: str, text: str) -> None:
    assert stored(b'{"event":"t","dev":"a","v":%s}' % number.encode(), v(decimal(9, 2))) == text


@pytest.mark.parametrize(
    ("unscaled", "precision", "scale", "text"),
    [
        (123_456_789, 4, 2, None),
        (9_999, 4, 2, "99.99"),
        (10_000, 4, 2, None),
        (-9_999, 4, 4, "-0.9999"),
        (7, 38, 38, "0." + "0" * 37 + "7"),
        (5, 3, 0, "5"),
    ],
)
def test_unscaled_bytes_are_checked_against_the_precision(
    unscaled: int, precision: int, scale: int, text: str | None
) -> None:
    raw = v(decimal(precision, scale))
    payload = as_avro(raw, v=unscaled.to_bytes(8, "big", signed=True))
    if text is None:
        assert "more digits" in parked(payload, raw)
    else:
        assert stored(payload, raw) == text


def test_a_decimal_is_never_read_as_a_float_beside_a_field_with_an_alias() -> None:
    raw = schema(
        {"name": "v", "type": decimal(20, 2)}, {"name": "now", "type": "double", "aliases": ["before"]}
    )
    payload = b'{"event":"t","dev":"a","v":123456789012345678.99,"before":1.5}'
    assert stored(payload, raw) == "123456789012345678.99"


@pytest.mark.parametrize(
    ("avro", "words"),
    [
        ({"type": "bytes", "logicalType": "decimal", "scale": 2}, "field v: a decimal has no precision"),
        (decimal(9, -2), "field v: a decimal has the scale -2"),
        (decimal(2, 3), "field v: a decimal has the scale 3"),
        (
            {"type": "bytes", "logicalType": "decimal", "precision": "5"},
            "field v: a decimal has the precision '5'",
        ),
        (["null", decimal(0, 0)], "field v: a decimal has the precision 0"),
        (
            {"type": "fixed", "size": 2, "name": "F", "logicalType": "decimal", "precision": 5},
            "does not fit into 2",
        ),
    ],
)
def test_a_decimal_with_an_invalid_precision_or_scale_is_rejected_at_start(avro: Any, words: str) -> None:
    with pytest.raises(ConfigError, match="schemas/t is not a valid Avro schema: ") as caught:
        outcomes([], event=EVENT, schemas=[v(avro)])
    assert words in str(caught.value.problems[0])


@pytest.mark.parametrize("default", ["\u007f" * 400, "1e1000000", "\u7fff"])
def test_a_default_beyond_the_precision_is_rejected_at_start(default: Any) -> None:
    with pytest.raises(ConfigError, match="default of field v: expected a decimal"):
        outcomes(
            [],
            event=EVENT,
            schemas=[
                v(
                    decimal(
                        9,
                        2,
                    ),
                    default=default,
                )
            ],
        )


# ---- Numbers


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ("5.0", 5),
        ("1e3", 1_000),
        ("1.686e+18", 1_686 * 10**15),
        ("-0", 0),
        ("9223372036854775807", 2**63 - 1),
        ("9.223372036854775807e18", 2**63 - 1),
        ("0.5e1", 5),
        ("0e5", 0),
        ("100e-2", 1),
    ],
)
@pytest.mark.parametrize("avro", ["long", ["null", "long"]])
def test_an_integer_is_read_in_any_notation(sent: str, value: int, avro: Any) -> None:
    assert stored(b'{"event":"t","dev":"a","v":%s}' % sent.encode(), v(avro)) == value


@pytest.mark.parametrize(
    "sent", ["5.5", "1e-1", "9223372036854775808", "9" * 4_301, "1e400", "1e1000000", '"5"']
)
def test_other_numbers_than_64_bit_integers_are_parked(sent: str) -> None:
    reason = parked(b'{"event":"t","dev":"a","v":%s}' % sent.encode(), v("long"))
    assert reason.startswith("field v: expected a whole number of 64 bits, found ")


@pytest.mark.parametrize("sent", ["1e400", "-1e400", "9" * 400, '"NaN"', "null"])
def test_numbers_beyond_a_double_are_parked(sent: str) -> None:
    assert "field v: expected a number of 64 bits" in parked(
        b'{"event":"t","dev":"a","v":%s}' % sent.encode(), v("double")
    )


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), 0.1, -0.0])
def test_an_avro_double_is_stored_bit_for_bit(number: float) -> None:
    for avro in ("double", ["null", "double"]):
        found = stored(as_avro(v(avro), v=number), v(avro))
        assert struct.pack("<d", found) == struct.pack("<d", number)


@pytest.mark.parametrize("avro", [["double", "string"], {"type": "array", "items": "double"}])
@pytest.mark.parametrize(("number", "found"), [(float("inf"), "infinity"), (float("nan"), "NaN")])
def test_nan_and_infinity_inside_json_are_parked_and_never_null(avro: Any, number: float, found: str) -> None:
    carried = number if isinstance(avro, list) else [1.0, number]
    assert f"expected a number of 64 bits, found {found}" in parked(as_avro(v(avro), v=carried), v(avro))


def test_a_required_number_that_is_nan_is_missing() -> None:
    event = Event(name="t", key="dev", required=("v",))
    assert outcome(as_avro(v("double"), v=float("nan")), v("double"), event=event)["code"] == "FIELD_MISSING"


# ---- Numbers that may be missing, in a user's functions


def test_nullable_numbers_and_booleans_compare_as_numbers_and_are_stored_exactly() -> None:
    def verify(batch: Batch) -> dict[str, Any]:
        assert batch["v"].dtype == batch["b"].dtype == np.float64
        return {"v is at most 9": ~((batch["v"] > 9) & (batch["v"] < 2**50)), "b": ~(batch["b"] == 0)}

    event = Event(name="t", key="dev", verify=verify)
    raw = schema(
        {"name": "v", "type": ["null", "long"], "default": None},
        {"name": "b", "type": ["boolean", "null"], "default": True},
    )
    rows = [(5, None), (None, True), (2**53 + 1, True), (-(2**63), None), (10, True), (1, False)]
    payloads = [as_json(v=number, b=flag) for number, flag in rows]
    together = outcomes(payloads, event=event, schemas=[raw], arrived=NOW)
    alone = outcomes(payloads, event=event, schemas=[raw], arrived=NOW, splits=[1] * len(rows))
    assert together == alone
    values = [item["values"] for (item,) in together[:4]]
    assert [(row["v"], row["b"]) for row in values] == rows[:4]
    assert [item["code"] for (item,) in together[4:]] == ["RULE_BROKEN"] * 2


def test_an_absent_previous_number_is_nan() -> None:
    def calculate(batch: Batch) -> dict[str, Any]:
        return {"more": batch["v"] > batch["previous.v"], "same": batch["b"] == batch["previous.b"]}

    event = Event(name="t", key="dev", calculate=calculate, previous=("v", "b"))
    raw = schema({"name": "v", "type": "long"}, {"name": "b", "type": "boolean"})
    found = outcomes([as_json(v=1, b=True), as_json(v=2, b=True)], event=event, schemas=[raw], arrived=NOW)
    assert [(item["values"]["more"], item["values"]["same"]) for (item,) in found] == [
        (False, False),
        (True, True),
    ]
