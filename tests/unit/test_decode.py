"""Decoding any bytes: every row is in exactly one of passed, failed and repeated, and nothing raises."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream_app.model.record import Code, Failure
from stream_app.model.records import Payloads
from stream_app.pipeline.decode import decode
from stream_app.pipeline.flow import process
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.testing import record
from tests import avro
from tests.samples import EVENTS, MAX_BYTES, READING, SCHEMAS, START, STEP, as_avro, as_envelope, as_json
from tests.support import outcomes_of

ALL = {**EVENTS, "every": avro.EVERY}
REGISTRY = Registry.of(
    ALL.values(), {**{name: [raw] for name, raw in SCHEMAS.items()}, "every": [avro.SCHEMA]}
)
FIELDS: dict[str, Any] = {"id": "1", "device": "a", "time": START, "value": 1.5}
EVERY_JSON = avro.to_json(avro.EXAMPLE)
VALID = (
    as_json("reading", FIELDS),
    as_envelope("reading", FIELDS),
    as_avro(FIELDS, SCHEMAS["reading"]),
    as_json("every", EVERY_JSON),
    as_envelope("every", EVERY_JSON),
    as_avro(avro.EXAMPLE, avro.SCHEMA),
    gzip.compress(as_json("step", FIELDS), 1, mtime=0),
)


def run(*payloads: bytes, max_bytes: int = MAX_BYTES) -> dict[int, Any]:
    """Return the outcome of each row. `process` raises FatalError unless each row is accounted for once."""
    records = [record(data, at) for at, data in enumerate(payloads)]
    found = outcomes_of(process(records, REGISTRY, ShardState(ALL, 4), max_bytes))
    assert sorted(found) == list(range(len(payloads)))
    return found


def failure(payload: bytes, max_bytes: int = MAX_BYTES) -> Failure:
    _, failed = decode(Payloads.of([payload]), REGISTRY, max_bytes)
    assert len(failed) == 1
    return failed[0]


# ---- Fuzzing

_numbers = st.one_of(
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.floats(),  # json.dumps writes NaN and Infinity, which JSON does not have
    st.sampled_from([2**31, 2**63, -(2**63) - 1, 1e308, 5e-324, -0.0]),
)
_texts = st.text(max_size=12)  # lone surrogates included
_names = st.sampled_from(
    [*avro.TYPES, *FIELDS, "event", "detail", "detail-type", "level", "note", "name", "since", "tags"]
)
_json = st.recursive(
    st.one_of(st.none(), st.booleans(), _numbers, _texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_names | _texts, inner, max_size=4)),
    max_leaves=12,
)


def _dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


@st.composite
def _records_with_odd_fields(draw: st.DrawFn) -> bytes:
    """A record of a known event in which some fields have arbitrary values."""
    name = draw(st.sampled_from(["reading", "step", "every"]))
    fields = dict(EVERY_JSON if name == "every" else FIELDS)
    fields |= draw(st.dictionaries(st.sampled_from([*fields, "level", "note", "sent_at"]), _json, max_size=3))
    return _dumped(
        draw(st.sampled_from([{"event": name, **fields}, {"detail-type": name, "detail": fields}]))
    )


@st.composite
def _mutated(draw: st.DrawFn) -> bytes:
    """A valid record with bytes changed, inserted or deleted, or truncated."""
    data = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["put", "take", "change", "cut"])):
            case "put":
                data[at:at] = draw(st.binary(min_size=1, max_size=4))
            case "take":
                del data[at : at + draw(st.integers(1, 4))]
            case "change":
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case _:
                del data[at:]
    return bytes(data)


_avro_bodies = st.builds(
    lambda head, body: head[:10] + body, st.sampled_from([VALID[2], VALID[5]]), st.binary(max_size=40)
)
_odd = st.one_of(
    st.binary(max_size=60),
    _json.map(_dumped),
    _records_with_odd_fields(),
    _mutated(),
    _avro_bodies,
    st.builds(gzip.compress, _records_with_odd_fields() | st.binary(max_size=30), st.just(1)),
    st.sampled_from(VALID),
)


@settings(max_examples=600)
@given(st.lists(_odd, max_size=6))
@example([b'{"event":"reading","x":' + b"[" * 100_000])
def test_every_row_is_accounted_for_whatever_its_bytes(payloads: list[bytes]) -> None:
    found = run(*payloads, max_bytes=200_000)
    for fate in found.values():
        if fate[0] == "failed":
            _, stage, code, reason, _, _ = fate
            assert stage
            assert isinstance(code, Code)
            assert 0 < len(reason) <= 400
            reason.encode()


@settings(max_examples=200)
@given(st.lists(_odd, max_size=4), st.lists(_odd, max_size=4))
def test_invalid_rows_do_not_change_the_outcome_of_other_rows(
    before: list[bytes], after: list[bytes]
) -> None:
    others = [row for row in (*before, *after) if run(row)[0][0] == "failed"]
    sound = as_json("reading", FIELDS)
    place, event, columns = run(*others, sound)[len(others)]
    assert (place, event) == ("passed", "reading")
    assert columns["doubled"] == run(sound)[0][2]["doubled"]


@pytest.mark.parametrize(
    "nest",
    [
        b'{"event":"reading","device":"a","time":0,"x":%s}',
        b'{"event":"reading","device":%s,"time":0}',
        b'{"detail-type":"reading","detail":{"device":"a","time":0,"note":%s}}',
        b'{"detail-type":"every","detail":{"place":{"name":"x","height":1,"tags":%s}}}',
        b'{"id":%s,"event":"reading"}',
    ],
)
@pytest.mark.parametrize(("begin", "end"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deeply_nested_records_fail_without_ending_the_process(nest: bytes, begin: bytes, end: bytes) -> None:
    deep = nest % (begin * 50_000 + b"1" + end * 50_000)
    assert run(deep, VALID[0], max_bytes=2**20)[0][0] == "failed"
    assert run(deep, VALID[0], max_bytes=2**20)[1][0] == "passed"


@pytest.mark.parametrize("wrap", [as_json, as_envelope])
def test_nulls_everywhere(wrap: Any) -> None:
    nulls = dict.fromkeys([*EVERY_JSON, "id", "device", "time", "value"])
    assert {fate[0] for fate in run(*(wrap(name, nulls) for name in ALL)).values()} == {"failed"}
    assert run(b'{"detail-type":null,"detail":null,"event":null,"id":null}')[0][2] == Code.UNKNOWN_SCHEMA


def test_lone_surrogates_are_rejected() -> None:
    broken = (
        b'{"event":"reading","device":"\\ud800","time":0}',
        b'{"event":"reading","device":"\xff","time":0}',
        b'{"event":"\\udc00","device":"a","time":0}',
        as_avro(FIELDS, SCHEMAS["reading"]).replace(b"\x02a", b"\x02\xff"),
    )
    assert [fate[2] for fate in run(*broken).values()] == [
        Code.UNDECODABLE,
        Code.UNDECODABLE,
        Code.UNDECODABLE,
        Code.SCHEMA_VIOLATION,
    ]
    assert failure(broken[1]).reason == "not UTF-8: byte 0xff at offset 29"


# ---- Formats


@pytest.mark.parametrize("payload", VALID)
@pytest.mark.parametrize("packed", [False, True])
def test_every_format_is_decoded_with_and_without_compression(payload: bytes, packed: bool) -> None:
    if payload[:2] == b"\x1f\x8b":
        payload = gzip.decompress(payload)
    assert run(gzip.compress(payload, 1, mtime=0) if packed else payload)[0][0] == "passed"


@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [
        (b"", Code.UNDECODABLE, "neither JSON"),
        (b"hello", Code.UNDECODABLE, "neither JSON"),
        *((data, Code.UNDECODABLE, "JSON, but not an object") for data in (b"[]", b'"x"', b"-1.5", b"null")),
        (b"[}", Code.UNDECODABLE, "neither JSON"),
        (b"[" * 65 + b"]" * 65, Code.UNDECODABLE, "neither JSON"),
        (b"\xef\xbb\xbf{}", Code.UNDECODABLE, "neither JSON"),
        (b'{"event":', Code.UNDECODABLE, "truncated"),
        (b'{"event":5}', Code.UNDECODABLE, "Expected `str | null`, got `int`"),
        (b'{"event":"reading"} x', Code.UNDECODABLE, "trailing characters"),
        (b'{"detail-type":"reading"}', Code.UNDECODABLE, "has no detail"),
        (b"{}", Code.UNKNOWN_SCHEMA, "neither detail-type nor event"),
        (b'{"event":"other"}', Code.UNKNOWN_SCHEMA, "'other'"),
        (b'{"detail-type":"other","detail":{}}', Code.UNKNOWN_SCHEMA, "'other'"),
        (b"\xc3\x01abcdefgh", Code.UNKNOWN_SCHEMA, b"abcdefgh".hex()),
        (b"\xc3\x01", Code.UNKNOWN_SCHEMA, "fingerprint"),
        (b"\x1f\x8b\x08", Code.UNDECODABLE, "ends too early"),
        (b"\x1f\x8bxxxxxxxxxxxx", Code.UNDECODABLE, "broken gzip"),
        (gzip.compress(b"{}", mtime=0)[:-5], Code.UNDECODABLE, "ends too early"),
        (gzip.compress(VALID[0], mtime=0) + b"more", Code.UNDECODABLE, "left over"),
        (gzip.compress(VALID[0], mtime=0) + gzip.compress(VALID[0], mtime=0), Code.UNDECODABLE, "left over"),
        (gzip.compress(gzip.compress(VALID[0], mtime=0), mtime=0), Code.UNDECODABLE, "neither JSON"),
    ],
)
def test_undecodable_records_have_a_reason(payload: bytes, code: Code, reason: str) -> None:
    failed = failure(payload)
    assert (failed.stage, failed.code) == ("decode", code)
    assert reason in failed.reason


def test_a_long_unknown_event_name_is_truncated_in_the_reason() -> None:
    long = "x" * 100_000
    for payload in (as_json(long, {}), as_envelope(long, {}), b'{"detail-type":"%s"}' % long.encode()):
        failed = failure(payload, 2**20)
        assert len(failed.reason) < 300
        assert len(failed.event or "") < 300


@pytest.mark.parametrize("at", [2, 5])
def test_bytes_after_an_avro_record_are_rejected(at: int) -> None:
    for broken in (VALID[at] + b"\x00", VALID[at][:-1], VALID[at][:10]):
        assert run(broken)[0][2] == Code.SCHEMA_VIOLATION


# ---- Sizes


def test_the_size_limit_applies_before_and_after_decompression() -> None:
    body = as_json("reading", {**FIELDS, "note": "x" * 100})
    assert run(body, max_bytes=len(body))[0][0] == "passed"
    assert failure(body, len(body) - 1).code is Code.TOO_LARGE
    packed = gzip.compress(body, mtime=0)
    assert run(packed, max_bytes=len(body))[0][0] == "passed"
    assert failure(packed, len(body) - 1).code is Code.TOO_LARGE


def test_a_gzip_bomb_does_not_exhaust_memory() -> None:
    bomb = gzip.compress(b"{" + b" " * 50_000_000, mtime=0)
    assert len(bomb) < 100_000
    assert failure(bomb, 200_000).code is Code.TOO_LARGE


def test_rows_are_grouped_by_event_in_order() -> None:
    rows = [as_json(name, FIELDS) for name in ("step", "reading", "step", "reading")]
    found, failed = decode(Payloads.of(rows), REGISTRY, MAX_BYTES)
    assert not failed
    assert {name: [*encoded.rows, *encoded.fast_rows] for name, encoded in found.items()} == {
        STEP.name: [0, 2],
        READING.name: [1, 3],
    }
