"""The outcome of a record depends on the order of the shard's records, not on how they are batched."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.events.air_quality.event import EVENT as AIR_QUALITY
from stream_app.model.event import Event, Window
from stream_app.model.record import Batch, Code
from stream_app.pipeline import dependent_rows, evaluate
from stream_app.pipeline.evaluate import Rows
from stream_app.pipeline.flow import process
from stream_app.pipeline.readers.payload_checks import MAX_DEPTH
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.testing import MAX_BYTES, outcomes, record
from tests.event_cases import one_schema, thing
from tests.fuzz import splits as fuzzer
from tests.fuzz.split_cases import only
from tests.samples import HOUR, READING, SCHEMAS, START, as_envelope, as_json, splits
from tests.support import RowOutcome, outcomes_of

ONE = Registry.of([READING], {"reading": [SCHEMAS["reading"]]})
FIELDS = {"device": "a", "time": START, "value": 1.0}
PLAIN, ENVELOPE = as_json("reading", FIELDS), as_envelope("reading", FIELDS)


def run(payloads: Sequence[bytes], sizes: Sequence[int], registry: Registry = ONE) -> tuple[str, bytes]:
    """Process the records in calls of these sizes; return the outcomes and the final state for comparison."""
    found, snapshot = process_in_calls(payloads, sizes, registry)
    return repr(sorted(found.items())), snapshot


def process_in_calls(
    payloads: Sequence[bytes], sizes: Sequence[int], registry: Registry = ONE
) -> tuple[dict[int, RowOutcome], bytes]:
    """Process the records in calls of these sizes; return the outcome of each record and the final state."""
    events = {name: codec.event for name, codec in registry.codecs.items()}
    state, found, start = ShardState(events, 4), dict[int, RowOutcome](), 0
    records = [record(data, at, arrived=START + 100 * HOUR) for at, data in enumerate(payloads)]
    for size in sizes:
        found |= outcomes_of(process(records[start : start + size], registry, state, MAX_BYTES), start)
        start += size
    return found, state.snapshot()


def same_in_every_split(payloads: Sequence[bytes], registry: Registry = ONE) -> dict[int, RowOutcome]:
    """Return the outcomes, after checking that every split of the records into calls gives the same."""
    n = len(payloads)
    whole = run(payloads, [n], registry)
    for cuts in itertools.product((False, True), repeat=n - 1):
        ends = [at + 1 for at, cut in enumerate(cuts) if cut] + [n]
        assert run(payloads, np.diff([0, *ends]).tolist(), registry) == whole
    return process_in_calls(payloads, [n], registry)[0]


# ---- Decoding


@pytest.mark.parametrize("neighbour", [PLAIN, ENVELOPE])
@pytest.mark.parametrize(
    "payload",
    [
        msgspec.json.encode(FIELDS),
        msgspec.json.encode({"Event": "reading", **FIELDS}),
        msgspec.json.encode({"specversion": "1.0", "type": "reading", "id": "1", "data": FIELDS, **FIELDS}),
        msgspec.json.encode({"detail": FIELDS}),
        msgspec.json.encode({"id": "1", "detail": FIELDS, **FIELDS}),
    ],
)
def test_a_record_must_name_its_event_even_with_a_single_event_type(payload: bytes, neighbour: bytes) -> None:
    for at in (0, 1, 2):
        payloads = [neighbour, neighbour]
        payloads.insert(at, payload)
        assert same_in_every_split(payloads)[at][2] == Code.UNKNOWN_SCHEMA


@pytest.mark.parametrize("neighbour", [PLAIN, ENVELOPE])
@pytest.mark.parametrize("broken", [b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\x80"])
@pytest.mark.parametrize(
    "form",
    [
        b'{"event":"reading","device":"a","time":0,"%s":1}',
        b'{"%s":1,"event":"reading","device":"a","time":0}',
        b'{"event":"reading","device":"a","time":0,"x":{"y":["%s"]}}',
        b'{"detail-type":"reading","detail":{"device":"a","time":0,"%s":1}}',
        b'{"detail-type":"reading","source":"%s","detail":{"device":"a","time":0}}',
        b'{"event":"reading","device":"a","time":0,"note":"%s"}',
    ],
)
def test_invalid_utf8_is_undecodable_and_its_offset_is_reported(
    form: bytes, broken: bytes, neighbour: bytes
) -> None:
    data, at = form % broken, form.index(b"%s")
    for payload in (data, gzip.compress(data, mtime=0)):
        for payloads in ([neighbour, payload], [payload, neighbour]):
            outcome = same_in_every_split(payloads)[payloads.index(payload)]
            assert outcome[2] == Code.UNDECODABLE
            assert outcome[3] == f"not UTF-8: byte 0x{broken[0]:02x} at offset {at}"


_LEVELS = (MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 500, *range(900, 1_000, 7), 50_000)


@pytest.mark.parametrize("neighbour", [PLAIN, ENVELOPE])
@pytest.mark.parametrize(("begin", "end"), [(b"[", b"]"), (b'{"a":', b"}")])
@pytest.mark.parametrize(
    ("form", "around"),
    [
        (b'{"event":"reading","device":"a","time":0,"x":%s}', 1),
        (b'{"x":%s,"event":"reading","device":"a","time":0}', 1),
        (b'{"detail-type":"reading","detail":{"device":"a","time":0,"x":%s}}', 2),
        (b'{"detail-type":"reading","x":%s,"detail":{"device":"a","time":0}}', 1),
    ],
)
def test_records_nested_deeper_than_64_levels_are_undecodable(
    form: bytes, around: int, begin: bytes, end: bytes, neighbour: bytes
) -> None:
    for levels in _LEVELS:
        deep = levels - around
        payload = form % (begin * deep + b"1" + end * deep)
        if len(payload) > MAX_BYTES:
            continue
        for data in (payload, gzip.compress(payload, mtime=0)):
            outcome = same_in_every_split([neighbour, data])[1]
            if levels <= MAX_DEPTH:
                assert outcome[0] == "passed"
            else:
                assert outcome[2:4] == (Code.UNDECODABLE, "nested deeper than 64 levels")


def test_brackets_that_are_not_nested_do_not_count_as_depth() -> None:
    many = b"[" + b",".join([b"[1]"] * 500) + b"]"
    text = b'"' + b"[{" * 500 + b'\\"[' + b'"'
    for value in (many, text):
        data = b'{"event":"reading","device":"a","time":0,"x":%s}' % value
        assert {fate[0] for fate in same_in_every_split([PLAIN, data, ENVELOPE]).values()} == {"passed"}


def test_reading_a_record_does_not_depend_on_the_stack_depth() -> None:
    data = b'{"event":"reading","device":"a","time":0,"x":%s}' % (b"[" * 63 + b"]" * 63)

    def below(frames: int) -> tuple[str, bytes]:
        return below(frames - 1) if frames else run([data], [1])

    assert below(500) == below(0)


# ---- Rows that depend on earlier rows


def air_quality(at: int, **fields: Any) -> bytes:
    known = {"id": str(at), "station": "s", "time": START + at * HOUR, "pm25": 10.0, "wind_direction": "N"}
    return as_json("air_quality", {**known, "wind_speed": 1.0, **fields})


def test_an_id_that_fails_in_calculate_is_accepted_once_afterwards() -> None:
    """Windows are restored whenever their rows are evaluated again."""
    payloads = [
        air_quality(0, pm25=12.0),
        air_quality(1, pm25=400.0, wind_direction="?", id="same"),
        air_quality(1, pm25=20.0, id="same"),
        air_quality(1, pm25=900.0, id="same"),
        air_quality(2, pm25=14.0),
    ]
    whole, one_by_one = (
        outcomes(payloads, event=AIR_QUALITY, arrived=START + 100 * HOUR, splits=sizes)
        for sizes in ([5], [1] * 5)
    )
    assert repr(whole) == repr(one_by_one)
    assert [one["status"] for (one,) in whole] == ["stored", "parked", "stored", "repeated", "stored"]
    # (14 + 0.6 · 20 + 0.36 · 12) / 1.96 = 15.47 µg/m³
    assert whole[4][0]["values"]["aqi"] == 63.0
    same_in_every_split(payloads, only("air_quality"))


_steps = st.fixed_dictionaries(
    {
        "id": st.sampled_from(("1", "2", "3", None)),
        "device": st.sampled_from("ab"),
        "time": st.integers(0, 5).map(lambda hour: START + hour * HOUR),
        "value": st.sampled_from((0.1, 3.3, 60.0, 101.0)),
        "note": st.sampled_from((None, None, "calculate raises", "verify raises")),
    }
)


@given(st.lists(_steps, min_size=1, max_size=30), st.sampled_from(("reading", "step")), st.data())
def test_rows_that_share_devices_and_ids_have_the_same_outcome_in_every_split(
    rows: list[dict[str, Any]], name: str, data: st.DataObject
) -> None:
    payloads = [as_json(name, row) for row in rows]
    registry = only(name)
    whole, sizes = run(payloads, [len(rows)], registry), [len(part) for part in data.draw(splits(payloads))]
    assert run(payloads, [1] * len(rows), registry) == whole
    assert run(payloads, sizes, registry) == whole


class Counter:
    """Counts the evaluations and the evaluated rows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = self.rows = 0
        self._evaluate = evaluate.evaluate
        monkeypatch.setattr(evaluate, "evaluate", self)

    def __call__(self, rows: Rows, *arguments: Any, **more: Any) -> Any:
        self.calls += 1
        self.rows += len(rows.batch)
        return self._evaluate(rows, *arguments, **more)


def parcels(count: int, status: Callable[[int], str], **fields: Callable[[int], Any]) -> list[bytes]:
    known: dict[str, Callable[[int], Any]] = {
        "id": str,
        "parcel": lambda _: "p",
        "time": lambda at: START + at,
        **fields,
    }
    return [
        as_json("parcel", {"status": status(at), **{name: value(at) for name, value in known.items()}})
        for at in range(count)
    ]


_CYCLE = ("picked_up", "signed", "in_transit", "lost", "in_transit", "delivered", "picked_up")
_noise = np.random.default_rng(7).integers(0, 40, 8_000).tolist()
LONG = {
    "never picked up": parcels(8_000, lambda _: "in_transit"),
    "many never picked up": parcels(8_000, lambda _: "in_transit", parcel=lambda at: str(at % 50)),
    "every second refused": parcels(8_000, lambda at: "picked_up" if not at else _CYCLE[1 + at % 2]),
    "a cycle": parcels(8_000, lambda at: _CYCLE[at % 7]),
    "times that go back": parcels(
        8_000, lambda at: "in_transit" if at else "picked_up", time=lambda at: START + at + _noise[at]
    ),
    "one id that fails": parcels(8_000, lambda _: "lost", id=lambda _: "same"),
}


@pytest.mark.parametrize("name", LONG)
def test_the_number_of_evaluated_rows_is_a_small_multiple_of_the_rows(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = only("parcel")
    assert run(LONG[name][:300], [300], registry) == run(LONG[name][:300], [1] * 300, registry)
    counter = Counter(monkeypatch)
    whole = run(LONG[name], [8_000], registry)
    # A few passes over all rows, then chunks of at most twice the rows that the previous chunk finalised.
    assert (
        counter.rows
        <= (1 + dependent_rows.FULL_PASSES + 3) * 8_000 + counter.calls * dependent_rows.MIN_CHUNK
    )
    assert counter.calls <= 400
    assert run(LONG[name], [700] * 12, registry) == whole


# ---- Windows


def _reductions(batch: Batch) -> dict[str, Any]:
    window = batch["window.value"]
    assert window.flags.c_contiguous
    return {
        "mean": np.nanmean(window, axis=1),
        "sum": window.sum(axis=1),
        "deviation": np.nanstd(window, axis=1),
        "product": np.prod(np.nan_to_num(window) + 1, axis=1),
        "norm": np.sqrt((np.nan_to_num(window) ** 2).sum(axis=1)),
        "recent": np.nansum(window[:, : max(1, window.shape[1] // 2)], axis=1),
    }


@given(st.integers(1, 40), st.integers(2, 60), st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_reductions_over_a_window_are_bit_identical_in_any_batch(size: int, count: int, seed: int) -> None:
    event = Event(
        name="thing", key="key", required=("time",), calculate=_reductions, window=Window(("value",), size)
    )
    schema = one_schema(
        {"name": "time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "value", "type": "double"},
    )
    registry = Registry.of([event], {"thing": [schema]})
    values = np.random.default_rng(seed).normal(size=count).tolist()
    payloads = [
        as_json("thing", {"key": "k", "time": START + at * HOUR, "value": value})
        for at, value in enumerate(values)
    ]
    assert run(payloads, [count], registry) == run(payloads, [1] * count, registry)


def test_failures_that_depend_on_combinations_of_rows_have_the_same_reason_in_every_split() -> None:
    def calculate(batch: Batch) -> dict[str, Any]:
        if (batch["value"] == 91).any() and (batch["value"] == -77).any():
            raise ArithmeticError("refused together")
        if (batch["value"] == 13).any():
            raise ValueError(f"thirteen among {len(batch)}")
        return {"twice": batch["value"] * 2}

    event = replace(READING, calculate=calculate, verify=None)
    registry = Registry.of([event], {"reading": [SCHEMAS["reading"]]})
    values = (91, -77, 13, 5, 13, -77, 91)
    payloads = [as_json("reading", {**FIELDS, "value": value}) for value in values]
    same_in_every_split(payloads, registry)


def test_the_fuzzer_finds_a_difference_and_shrinks_the_records() -> None:
    def calculate(batch: Batch) -> dict[str, Any]:
        return {"rows": np.full(len(batch), len(batch))}

    registry = thing(one_schema(), calculate=calculate, dry_run=False)
    prepared = fuzzer.prepared(registry)
    payloads = [as_json("thing", {"key": str(at)}) for at in range(9)]
    assert "differ: row 0" in (fuzzer.difference(prepared, payloads, 0) or "")
    short, wrong = fuzzer.shortest(prepared, payloads, "")
    assert len(short) == 2
    assert "rows" in wrong
