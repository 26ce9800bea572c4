"""`stream_app.testing.outcomes`: the outcome of raw records, read back from Parquet."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pytest

from stream_app.events.parcel import EVENT as PARCEL
from stream_app.testing import outcomes
from tests.samples import READING, SCHEMAS, START, as_avro, as_envelope, as_json

_FIELDS = {"device": "a", "time": START, "value": 1.5}
_PAYLOADS = [
    as_json("reading", {"id": "1", **_FIELDS}),
    as_json("reading", {"id": "1", **_FIELDS}),
    b"[1]",
    as_json("reading", {"id": "2", "device": "a"}),
    as_envelope("reading", {**_FIELDS, "value": 101.0}),
    as_avro({"id": "3", **_FIELDS}, SCHEMAS["reading"]),
]


def test_each_record_is_stored_parked_or_repeated() -> None:
    found = outcomes(_PAYLOADS, event=READING, schemas=[SCHEMAS["reading"]])
    assert [len(items) for items in found] == [1] * len(_PAYLOADS)
    stored, repeated, undecodable, missing, rule, avro = (items[0] for items in found)
    assert stored["event"] == "reading"
    assert stored["values"]["doubled"] == 3.0
    assert stored["values"]["time"] == datetime(2016, 12, 1, tzinfo=UTC)
    assert stored["values"]["level"] is None
    assert repeated == {"status": "repeated"}
    assert undecodable["status"] == "parked"
    assert (undecodable["code"], undecodable["stage"]) == ("UNDECODABLE", "decode")
    assert missing == {"status": "parked", "code": "FIELD_MISSING", "stage": "verify", "reason": "time"}
    assert rule["code"] == "RULE_BROKEN"
    assert avro["status"] == "stored"


@pytest.mark.parametrize("splits", [[1] * 6, [2, 0, 3], [6], [1, 5], [99]])
def test_splitting_the_records_does_not_change_outcomes(splits: list[int]) -> None:
    whole = outcomes(_PAYLOADS, event=READING, schemas=[SCHEMAS["reading"]])
    assert outcomes(_PAYLOADS, event=READING, schemas=[SCHEMAS["reading"]], splits=splits) == whole


def test_the_discovered_types_are_used_without_an_event() -> None:
    payload = as_json("parcel", {"id": "1", "parcel": "p", "status": "picked_up", "time": START})
    for found in (outcomes([payload]), outcomes([payload], event=PARCEL)):
        assert found[0][0]["values"]["status"] == "picked_up"


def test_an_empty_sequence_has_no_outcomes() -> None:
    assert outcomes([], event=PARCEL) == []


def test_the_module_imports_without_pytest_and_fixtures_name_what_is_missing() -> None:
    program = (
        "import sys; sys.modules['pytest'] = None\n"
        "from stream_app.testing import outcomes, run, Player\n"
        "try:\n    from stream_app.testing import aws\n"
        "except ImportError as error:\n    print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'stream-app[testing]'" in ran.stdout
