"""Records have the same outcome on the fast path as with the exact readers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from stream_app.model.record import Record
from stream_app.model.records import Payloads
from stream_app.pipeline.decode import decode
from stream_app.pipeline.flow import process
from stream_app.pipeline.readers.fast_path import FastPath
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.testing import record
from tests.event_cases import one_schema, thing
from tests.samples import EVENTS, MAX_BYTES, START, as_json, registry, shards
from tests.support import RowOutcome, outcomes_of

QUICK = registry()
ALIASED = thing(
    one_schema(
        {"name": "temperature", "type": "double", "aliases": ["temp", "t"]},
        {"name": "unit", "type": "string", "default": "°C"},
        {"name": "count", "type": ["null", "long"], "default": None},
        {"name": "id", "type": ["null", "string"], "default": None},
    ),
    required=("key", "count"),
)


def without_fast_path(known: Registry) -> Registry:
    """Return the same events without a fast path."""
    return replace(known, fast_path=FastPath(()))


def run(records: list[Record], known: Registry) -> dict[int, RowOutcome]:
    events = {name: codec.event for name, codec in known.codecs.items()}
    return outcomes_of(process(records, known, ShardState(events, 3), MAX_BYTES))


@given(shards())
def test_records_have_the_same_outcome_with_and_without_the_fast_path(records: list[Record]) -> None:
    assert run(records, QUICK) == run(records, without_fast_path(QUICK))


_values: st.SearchStrategy[Any] = st.sampled_from((None, 1, 1.5, "x", True, [], {}, 2**70, "1"))
_names = ("key", "temperature", "temp", "t", "unit", "count", "id", "event", "detail-type", "detail", "later")
_fields = st.dictionaries(st.sampled_from(_names), _values, max_size=6)
_usual = st.fixed_dictionaries({"key": st.just("k"), "temperature": st.just(1.5), "count": st.just(1)})
_objects = st.one_of(_fields, _usual, st.builds(lambda a, b: {**a, **b}, _usual, _fields))


def _payload(fields: dict[str, Any], envelope: dict[str, Any], form: str) -> bytes:
    if form == "plain":
        return msgspec.json.encode({"event": "thing", **fields})
    if form == "twice":  # the last of duplicate names wins
        return b'{"event":"thing","detail-type":"thing",' + msgspec.json.encode(fields)[1:]
    return msgspec.json.encode({"id": "e", "detail-type": "thing", "detail": fields, **envelope})


_envelopes = st.dictionaries(st.sampled_from(("id", "event", "detail-type", "detail", "source")), _values)
_payloads = st.builds(
    _payload, _objects, st.one_of(st.just({}), _envelopes), st.sampled_from(("plain", "twice", "enveloped"))
)


@given(st.lists(_payloads, min_size=1, max_size=8))
def test_unusual_records_have_the_same_outcome_with_and_without_the_fast_path(payloads: list[bytes]) -> None:
    records = [record(data, at) for at, data in enumerate(payloads)]
    assert run(records, ALIASED) == run(records, without_fast_path(ALIASED))


@given(st.integers(0, 9), st.integers(0, 9))
def test_an_unusual_record_does_not_keep_others_off_the_fast_path(before: int, after: int) -> None:
    good = as_json("reading", {"device": "a", "time": START})
    payloads = [good, *[good] * before, b"{", *[good] * after]
    found, failed = decode(Payloads.of(payloads), QUICK, MAX_BYTES)
    assert [failure.row for failure in failed] == [before + 1]
    assert found["reading"].fast_rows.tolist() == [at for at, data in enumerate(payloads) if data == good]
    assert not found["reading"].rows


def test_an_event_with_nested_fields_never_takes_the_fast_path() -> None:
    nested = thing(one_schema({"name": "x", "type": {"type": "array", "items": "int"}}))
    data = as_json("thing", {"key": "k", "x": [1]})
    assert nested.fast_path.read(Payloads.of([data]), MAX_BYTES) == [data]
    assert EVENTS.keys() == set(QUICK.fast_path.events.values())
