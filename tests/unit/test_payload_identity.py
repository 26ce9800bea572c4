"""Deduplication by a hash of the record's bytes, for devices that send no id."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app import app
from stream_app.model.event import PAYLOAD, Event
from stream_app.pipeline.flow import Processed, process
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.pipeline.user_code.declaration_checks import without_deduplication
from stream_app.settings import Settings
from stream_app.sinks.parquet import to_table
from stream_app.telemetry import log
from stream_app.testing import record
from tests.samples import MAX_BYTES, SCHEMAS, START, as_avro, as_envelope, as_json, encoded

SCHEMA: dict[str, Any] = {
    **SCHEMAS["reading"],
    "fields": [field for field in SCHEMAS["reading"]["fields"] if field["name"] != "id"],
}
EVENT = Event(name="reading", key="device", required=("device", "time"), id=PAYLOAD)
REGISTRY = Registry.of([EVENT], {"reading": [SCHEMA]})
FIELDS = {"device": "a", "time": START, "value": 1.0, "level": None, "note": None, "sent_at": None}


def fresh(limit: int = 9) -> ShardState:
    return ShardState({"reading": EVENT}, limit)


def taken(*payloads: bytes, state: ShardState | None = None) -> Processed:
    records = [record(data, at) for at, data in enumerate(payloads)]
    return process(records, REGISTRY, state or fresh(), MAX_BYTES)


@pytest.mark.parametrize(
    "payload",
    [
        as_json("reading", FIELDS),
        as_envelope("reading", FIELDS),
        as_avro(FIELDS, SCHEMA),
        gzip.compress(as_json("reading", FIELDS), mtime=0),
    ],
    ids=["json", "envelope", "avro", "gzip"],
)
def test_the_same_bytes_are_the_same_record(payload: bytes) -> None:
    assert taken(payload, payload).repeated.tolist() == [1]
    state = fresh()
    assert taken(payload, state=state).repeated.tolist() == []
    after = fresh()
    after.restore(state.snapshot())
    assert taken(payload, state=after).repeated.tolist() == [0]


def test_different_bytes_are_a_different_record() -> None:
    fields = as_json("reading", FIELDS)
    others = [
        fields,
        fields.replace(b",", b", "),
        gzip.compress(fields, mtime=0),
        gzip.compress(fields, mtime=1),
        as_envelope("reading", FIELDS, "one"),
        as_envelope("reading", FIELDS, "other"),
        as_json("reading", {**FIELDS, "device": "b"}),
    ]
    assert taken(*others).repeated.tolist() == []


def test_the_hash_is_not_stored() -> None:
    result = taken(as_json("reading", FIELDS))
    table, _ = to_table(result.passed["reading"], [record(b"", 0)], "shard")
    assert not [name for name in table.column_names if "#" in name or "hash" in name]


_FORMS = st.sampled_from(["json", "envelope", "avro", "gzip", "garbage"])


def payload(value: int, form: str) -> bytes:
    if form == "garbage":
        return b"{"
    if form == "avro":
        return as_avro({**FIELDS, "value": float(value)}, SCHEMA)
    return encoded("reading", {**FIELDS, "value": value}, form)


@given(st.lists(st.tuples(st.integers(0, 3), _FORMS), max_size=20), st.integers(0, 20))
def test_deduplication_does_not_depend_on_batch_boundaries(rows: list[tuple[int, str]], cut: int) -> None:
    payloads = [payload(*row) for row in rows]
    whole = taken(*payloads).repeated.tolist()
    state = fresh()
    first = taken(*payloads[:cut], state=state).repeated.tolist()
    rest = taken(*payloads[cut:], state=state).repeated.tolist()
    assert whole == [*first, *(len(payloads[:cut]) + row for row in rest)]
    seen: set[bytes] = set()
    expected = []
    for at, data in enumerate(payloads):
        if data in seen and data != b"{":
            expected.append(at)
        seen.add(data)
    assert whole == expected


def test_an_event_type_without_deduplication_is_named() -> None:
    bare = Event(name="reading", key="device", required=("device", "time"))
    codec = Registry.of([bare], {"reading": [SCHEMA]}).codecs["reading"]
    told = without_deduplication(codec.event, codec.schema)
    assert told is not None
    assert told.what.startswith("event 'reading' is stored without deduplication")
    assert "PAYLOAD" in told.hint
    assert without_deduplication(EVENT, codec.schema) is None
    full = Registry.of([bare], {"reading": [SCHEMAS["reading"]]}).codecs["reading"]
    assert without_deduplication(full.event, full.schema) is None
    assert json.dumps(told._asdict())


def test_a_consumer_logs_event_types_without_deduplication_at_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("events", "schemas"):
        (tmp_path / folder).mkdir()
    for name, more in (("bare", ""), ("hashed", ", id=PAYLOAD")):
        (tmp_path / "schemas" / f"{name}.avsc").write_text(json.dumps({**SCHEMA, "name": name}))
        (tmp_path / "events" / f"{name}.py").write_text(
            "from stream_app.api import PAYLOAD, Event\n"
            f"EVENT = Event(name='{name}', key='device', required=('device', 'time'){more})\n"
        )
    monkeypatch.chdir(tmp_path)
    log.configure()
    try:
        app.consumer(
            Settings("app", "devices", bucket="b", dead_letter_queue="q"), app.clients({}, "us-east-1")
        )
    finally:
        for name in ("bare", "hashed"):
            sys.modules.pop(f"events.{name}", None)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    told = [line for line in lines if "without deduplication" in line["event"]]
    assert [(line["level"], line["event_type"]) for line in told] == [("warning", "bare")]
    assert told[0]["hint"]
