"""The fast path agrees with the exact readers; numbers and times agree with Python's own modules."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from decimal import Decimal

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.model.event import Event
from stream_app.pipeline.flow import process
from stream_app.pipeline.readers.fast_path import FastPath
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.pipeline.values import exact_numbers, time_kernel, time_text
from stream_app.testing import record
from tests.support import RowOutcome, outcomes_of
from tests.unit.test_value_properties import EPOCH, TYPES
from tests.unit.values import NOW, schema

# ---- Numbers and times from text

_digits = st.text("0123456789", max_size=12)
_numbers = st.builds(
    lambda sign, a, point, b, e: f"{sign}{a}{point}{b}{e}",
    st.sampled_from(["", "-", "+"]),
    _digits,
    st.sampled_from(["", "."]),
    _digits,
    st.sampled_from(["", "e0", "E5", "e-7", "e+12", "e00003", "e", "e-", "x"]),
)


@given(_numbers)
def test_numbers_are_parsed_like_decimal(text: str) -> None:
    found = exact_numbers.parse(text)
    try:
        expected = Decimal(text)
    except ArithmeticError:
        assert found is None
        return
    assert found is not None
    value = Decimal(f"{'-' if found.negative else ''}{found.digits or '0'}e{found.exponent}")
    assert value == expected
    integral = expected == expected.to_integral_value()
    small = abs(expected) < 10**19
    assert exact_numbers.to_integer(found) == (int(expected) if integral and small else None)


_pieces = st.builds(
    lambda *parts: "".join(parts),
    st.sampled_from(
        ["2024-02-29", "2023-02-29", "2000-12-31", "1900-02-29", "0001-01-01", "9999-12-31", "0000-01-01"]
    )
    | st.dates().map(str),
    st.sampled_from(["T", "t", " ", ""]),
    st.sampled_from(["23:59:59", "24:00:00", "00:00:60", "00:00"])
    | st.times().map(lambda t: t.isoformat("seconds")),
    st.sampled_from(["", ".", ".9", ".999", ".9999999", ".000000", ".123456789123"]),
    st.sampled_from(["Z", "z", "+01:00", "-23:59", "+24:00", "+0100", "-00:60", "", " Z", "+0a:00"]),
)


@given(_pieces, st.sampled_from([1_000, 1_000_000]))
@settings(max_examples=300)
def test_the_compiled_time_parser_agrees_with_the_exact_one_or_is_undecided(
    text: str, per_second: int
) -> None:
    data = np.frombuffer(text.encode() + b"...", np.uint8)
    found = time_kernel.parse_instant(data, 0, len(text), per_second)
    careful = time_text.parse_instant(text, per_second)
    first, last = time_text.FIRST_SECOND * per_second, (time_text.LAST_SECOND + 1) * per_second - 1
    if careful is None or not first <= careful <= last:
        assert found == time_kernel.UNDECIDED
    elif found != time_kernel.UNDECIDED:
        assert found == careful
    usual = careful is not None and text[10] == "T" and (text[-1] in "Zz" or text[-3] == ":")
    if usual and first <= (careful or 0) <= last:
        assert found == careful


@given(
    st.datetimes(timezones=st.timezones(), min_value=dt.datetime(2, 1, 1), max_value=dt.datetime(9999, 1, 1))
)
def test_a_time_is_parsed_like_pythons_datetime(moment: dt.datetime) -> None:
    offset = moment.utcoffset()
    if offset is None or offset % dt.timedelta(minutes=1):
        return
    expected = (moment - EPOCH.replace(tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
    assert time_text.parse_instant(moment.isoformat(), 1_000_000) == expected


# ---- Fast path and exact readers

_tokens = st.sampled_from(
    [
        *(
            "null",
            "true",
            "0",
            "-0",
            "5",
            "5.0",
            "1e3",
            "-1",
            "1.5",
            "2147483648",
            "9007199254740993",
            "1e400",
        ),
        *(
            "9223372036854775807",
            "9223372036854775808",
            "1790000000",
            "1790000000000",
            "253402300800000",
            "1e39",
        ),
        *(
            '"A"',
            '""',
            '"5"',
            '"2026-01-01T00:00:00Z"',
            '"2026-01-01T00:00:00.9999999Z"',
            '"2026-01-01 00:00:00z"',
        ),
        *('"9999-12-31T23:59:59-05:00"', '"2026-01-01"', '"00000000-0000-0000-0000-00000000000A"'),
        *(
            '"00000000000000000000000000000005"',
            '"{00000000-0000-0000-0000-000000000005}"',
            '"\\ud800"',
            '"\\u0000"',
        ),
        *("[]", "[1]", "{}", '{"a":1}', '"w6k="'),
    ]
)
_avro_types = st.sampled_from([avro for avro, _ in TYPES.values()])
_fields = st.builds(
    lambda avro, nullable, default, alias: (
        ["null", avro] if nullable else avro,
        nullable and default,
        alias,
    ),
    _avro_types,
    st.booleans(),
    st.booleans(),
    st.booleans(),
)


@st.composite
def schemas_and_records(draw: st.DrawFn) -> tuple[Registry, list[bytes]]:
    fields = draw(st.lists(_fields, min_size=1, max_size=3))
    raw = schema(
        *(
            {
                "name": f"f{at}",
                "type": json.loads(json.dumps(avro).replace('"F"', f'"F{at}"').replace('"E"', f'"E{at}"')),
                **({"default": None} if default else {}),
                **({"aliases": [f"old{at}"]} if alias else {}),
            }
            for at, (avro, default, alias) in enumerate(fields)
        )
    )
    names = [*(f"f{at}" for at in range(len(fields))), "old0", "id", "dev", "other"]
    required = tuple(
        draw(st.sets(st.sampled_from(["id", *(f"f{at}" for at in range(len(fields)))]), max_size=2))
    )
    event = Event(name="t", key="dev", required=required, reject_coarse_times=draw(st.booleans()))
    payloads = []
    for _ in range(draw(st.integers(1, 4))):
        members = draw(st.lists(st.tuples(st.sampled_from(names), _tokens), max_size=6))
        body = ",".join(f'"{name}":{token}' for name, token in [("dev", '"a"'), *members])
        wrapped = draw(st.booleans())
        text = f'{{"detail-type":"t","id":"e","detail":{{{body}}}}}' if wrapped else f'{{"event":"t",{body}}}'
        payloads.append(text.encode())
    return Registry.of([event], {"t": [raw]}), payloads


@given(schemas_and_records())
@settings(max_examples=250)
def test_the_fast_path_agrees_with_the_exact_readers(drawn: tuple[Registry, list[bytes]]) -> None:
    registry, payloads = drawn
    fast = run(registry, payloads)
    assert fast == run(replace(registry, fast_path=FastPath(())), payloads)
    alone = [run(registry, [payload], at) for at, payload in enumerate(payloads)]
    if not any(fate == ("repeated",) for fate in fast.values()):
        assert fast == {row: fate for one in alone for row, fate in one.items()}


def run(registry: Registry, payloads: list[bytes], start: int = 0) -> dict[int, RowOutcome]:
    events = {name: codec.event for name, codec in registry.codecs.items()}
    records = [record(data, start + at, arrived=NOW) for at, data in enumerate(payloads)]
    return outcomes_of(process(records, registry, ShardState(events, 3), 1_000_000), start)
