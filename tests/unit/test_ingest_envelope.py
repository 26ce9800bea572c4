"""Encodings of outgoing records: decoding returns the original detail."""

from __future__ import annotations

import gzip
import io
import json
from datetime import UTC, datetime
from typing import Any

import fastavro
import fastavro.schema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.aws.request_sizes import SOURCE, envelope, put_events_entry, put_events_size
from stream_app.ingest.envelope import (
    AVRO,
    AVRO_PAST,
    GZIP,
    JSON,
    OutgoingRecord,
    encoders,
)

MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
NOW: dict[str, Any] = {
    "type": "record",
    "name": "probe",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "time", "type": MILLIS},
        {"name": "temperature", "type": ["null", "double"], "default": None, "aliases": ["temp"]},
        {"name": "rain", "type": ["null", "double"], "default": None},
        {"name": "sent_at", "type": ["null", MILLIS], "default": None},
    ],
}
PAST: dict[str, Any] = {
    "type": "record",
    "name": "probe",
    "fields": [*NOW["fields"][:2], {"name": "temp", "type": ["null", "double"], "default": None}],
}
MIDDLE: dict[str, Any] = {**PAST, "fields": [*PAST["fields"], {"name": "rain", "type": ["null", "double"]}]}

lenient = settings(deadline=None, max_examples=50)
moments = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)).map(
    lambda t: t.replace(tzinfo=UTC, microsecond=t.microsecond // 1000 * 1000)
)
numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)
details = st.fixed_dictionaries(
    {
        "id": st.text(),
        "time": moments,
        "temperature": numbers,
        "rain": numbers,
        "sent_at": st.none() | moments,
    }
)


def as_json(detail: dict[str, Any]) -> dict[str, Any]:
    return {
        name: v.isoformat().replace("+00:00", "Z") if isinstance(v, datetime) else v
        for name, v in detail.items()
    }


def read(data: bytes, schema: dict[str, Any]) -> Any:
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    mark = bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))
    assert data[:10] == b"\xc3\x01" + mark
    return fastavro.schemaless_reader(io.BytesIO(data[10:]), schema, None)


def test_the_fingerprint_is_little_endian() -> None:
    # The Avro specification's CRC-64-AVRO of the schema "int" is 0x7275d51a3f395c8f.
    mark = bytes.fromhex(fastavro.schema.fingerprint('"int"', "CRC-64-AVRO"))
    assert int.from_bytes(mark, "little") == 0x7275D51A3F395C8F


@given(detail=details)
@lenient
def test_every_encoding_preserves_the_detail(detail: dict[str, Any]) -> None:
    written = {name: encode("probe", detail) for name, encode in encoders([NOW, PAST]).items()}
    assert set(written) == {JSON, GZIP, AVRO, AVRO_PAST}
    assert json.loads(written[JSON]) == {"event": "probe", **as_json(detail)}
    assert gzip.decompress(written[GZIP]) == written[JSON]
    assert read(written[AVRO], NOW) == detail
    assert read(written[AVRO_PAST], PAST) == {
        "id": detail["id"],
        "time": detail["time"],
        "temp": detail["temperature"],
    }


def test_avro_past_uses_the_oldest_version() -> None:
    detail = {"id": "a", "time": datetime(2016, 12, 1, tzinfo=UTC), "temperature": 1.5, "rain": 2.5}
    assert "rain" not in read(encoders([NOW, MIDDLE, PAST])[AVRO_PAST]("probe", detail), PAST)
    assert set(encoders([NOW])) == {JSON, GZIP, AVRO}
    assert set(encoders()) == {JSON, GZIP}


@pytest.mark.parametrize("wrong", [{"rain": "much"}, {"time": None}, {"id": 1}])
def test_a_detail_that_does_not_match_the_schema_is_plain_json(wrong: dict[str, Any]) -> None:
    detail = {"id": "a", "time": datetime(2016, 12, 1, tzinfo=UTC), "rain": 1.0, **wrong}
    written = encoders([NOW])
    assert written[AVRO]("probe", detail) == written[JSON]("probe", detail)


def test_the_envelope_has_the_form_of_eventbridge() -> None:
    time = datetime(2016, 12, 1, 2, 3, 4, 567_000, tzinfo=UTC)
    data = envelope(
        "probe", "ä", {"id": "x"}, id="1-2", time=time, region="eu-west-1", account="000000000000"
    )
    assert json.loads(data) == {
        "version": "0",
        "id": "1-2",
        "detail-type": "probe",
        "source": SOURCE,
        "account": "000000000000",
        "time": "2016-12-01T02:03:04Z",
        "region": "eu-west-1",
        "resources": ["ä"],
        "detail": {"id": "x"},
    }


@given(event=st.text(), key=st.text(), detail=details)
@lenient
def test_entry_sizes_are_in_bytes(event: str, key: str, detail: dict[str, Any]) -> None:
    entry = put_events_entry(event, key, detail, "bus")
    assert json.loads(entry["Detail"]) == as_json(detail)
    texts = [SOURCE, event, key, entry["Detail"]]
    assert put_events_size(entry) == len("".join(texts).encode())
    assert put_events_size({**entry, "Time": ""}) == put_events_size(entry) + 14


def test_the_name_of_a_record_does_not_contain_its_payload() -> None:
    assert OutgoingRecord("bus", "probe", "p1", {"id": "x/1", "secret": "s"}).name == "probe of p1 (x/1)"
    assert OutgoingRecord("stream", "probe", "p1", b"secret").name == "probe of p1"
