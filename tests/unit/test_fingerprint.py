"""Failures with the same cause have the same fingerprint, whatever values their reasons contain."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.recovery.find.fingerprint import fingerprint, pattern

TEMPLATES = [
    "not a JSON object of a known form: JSON is malformed: invalid character (byte {n})",
    "Expected `float`, got `str` - at `$.pm25` ({n})",
    "no schema has fingerprint {hex}",
    "{n} bytes or more, the limit is 262144",
    "ValueError: could not convert string to float: '{words}'",
    "ZeroDivisionError: at {time}",
    "time {time} is before {time}",
    "RetryAttemptsExhausted in function air-map after {n} calls: Unhandled",
    "no record {uuid} of {n}",
]
VALUES = st.fixed_dictionaries(
    {
        "n": st.integers(-(10**18), 10**18) | st.floats(allow_nan=False, allow_infinity=False),
        "hex": st.integers(16**15, 16**16 - 1)
        .map(lambda n: f"{n:x}")
        .filter(lambda t: any(c.isdigit() for c in t)),
        "words": st.text(string.ascii_letters + " ", min_size=2).map(lambda text: f"a {text} b"),
        "time": st.datetimes().map(lambda at: at.isoformat() + "Z"),
        "uuid": st.uuids().map(str),
    }
)


@pytest.mark.parametrize("template", TEMPLATES)
@given(one=VALUES, other=VALUES)
def test_the_fingerprint_does_not_depend_on_values(
    template: str, one: dict[str, object], other: dict[str, object]
) -> None:
    reasons = template.format(**one), template.format(**other)
    first, second = (fingerprint("decode", "UNDECODABLE", None, reason) for reason in reasons)
    assert first == second, [pattern(reason) for reason in reasons]


def test_different_causes_have_different_fingerprints() -> None:
    causes = [
        ("verify", "RULE_BROKEN", "air_quality", "pm25 is not negative"),
        ("verify", "RULE_BROKEN", "air_quality", "pm10 is not negative"),
        ("verify", "RULE_BROKEN", "parcel", "pm25 is not negative"),
        ("verify", "FIELD_MISSING", "air_quality", "pm25"),
        ("calculate", "CALCULATION_FAILED", "air_quality", "KeyError: 'depot'"),
        ("calculate", "CALCULATION_FAILED", "air_quality", "KeyError: 'station'"),
        ("decode", "UNKNOWN_SCHEMA", None, "no event type 'parcels' is declared"),
        ("decode", "UNKNOWN_SCHEMA", None, "no event type 'parcel_v' is declared"),
        ("conform", "SCHEMA_VIOLATION", "parcel", "Expected `int`, got `str` - at `$.depot`"),
        ("conform", "SCHEMA_VIOLATION", "parcel", "Expected `int`, got `str` - at `$.status`"),
    ]
    assert len({fingerprint(*cause) for cause in causes}) == len(causes)


@given(st.text(), st.text(), st.none() | st.text(), st.text(max_size=600))
def test_any_text_has_a_fingerprint(stage: str, code: str, event: str | None, reason: str) -> None:
    found = fingerprint(stage, code, event, reason)
    assert len(found) == 10
    assert set(found) <= set(string.hexdigits)
    assert pattern(pattern(reason)) == pattern(pattern(pattern(reason)))
