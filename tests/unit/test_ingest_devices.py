"""Determining the event type of a data set, and playing it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stream_app.errors import ConfigError
from stream_app.ingest.datasets import JOURNEYS, WINTER, dataset
from stream_app.ingest.devices import PlayOptions, event_encoders, event_of, outgoing_records, play
from stream_app.ingest.envelope import AVRO, AVRO_PAST, GZIP, JSON
from stream_app.ingest.faults import expected
from stream_app.ingest.publish_options import Destination, PublishOptions
from stream_app.model.event import Event

AIR = Event("air_quality", key="station", sent="sent_at")
PARCEL = Event("parcel", key="parcel", sent="sent_at")
DOOR = Event("door", key="door")
DECLARED = {event.name: event for event in (AIR, PARCEL, DOOR)}


class Aws:
    """Accepts every entry."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.records: list[dict[str, Any]] = []

    def put_events(self, Entries: list[dict[str, Any]]) -> dict[str, Any]:
        self.entries += Entries
        return {"FailedEntryCount": 0, "Entries": [{"EventId": "1"}] * len(Entries)}

    def put_records(self, StreamName: str, Records: list[dict[str, Any]]) -> dict[str, Any]:
        self.records += Records
        return {"FailedRecordCount": 0, "Records": [{"ShardId": "0"}] * len(Records)}


def played(file: str | Path, **options: Any) -> tuple[Any, Aws]:
    aws = Aws()
    client: Any = aws
    publishing = PublishOptions(rate=options.pop("rate", None), via=options.pop("via", "bus"))
    chosen = PlayOptions(**{"declared": DECLARED, **options})
    return play(file, Destination(client, client, "b", "s"), chosen, publishing), aws


def doors(folder: Path, line: str = '{"time":0,"door":"front"}') -> Path:
    path = folder / "doors.jsonl"
    path.write_text(line + "\n")
    return path


def test_shipped_data_names_its_event_type(tmp_path: Path) -> None:
    two = {**DECLARED, "noise": Event("noise", key="station")}
    assert event_of(dataset(WINTER), two) is AIR
    assert event_of(dataset(JOURNEYS), two) is PARCEL


def test_the_event_type_of_a_file_is_named_or_derived_from_its_key(tmp_path: Path) -> None:
    assert event_of(dataset(doors(tmp_path)), DECLARED) is DOOR
    named = doors(tmp_path, '{"time":0,"event":"door","door":"front","station":"a"}')
    assert event_of(dataset(named), DECLARED) is DOOR


@pytest.mark.parametrize(
    ("line", "name", "what"),
    [
        ('{"time":0,"door":"front"}', "window", "'window'"),
        ('{"time":0,"door":"front"}', "parcel", "no column 'parcel'"),
        ('{"time":0,"gate":"front"}', None, "is ambiguous"),
        ('{"time":0,"door":"front","parcel":"P"}', None, "is ambiguous"),
    ],
)
def test_an_ambiguous_event_type_is_an_error(line: str, name: str | None, what: str, tmp_path: Path) -> None:
    aws_untouched = doors(tmp_path, line)
    with pytest.raises(ConfigError, match=what) as caught:
        event_of(dataset(aws_untouched), DECLARED, name)
    assert all(problem.hint for problem in caught.value.problems)


def test_play_sends_the_plan() -> None:
    sent, aws = played(WINTER, first=2_000)
    forms = event_encoders(AIR)
    planned = list(outgoing_records(dataset(WINTER), AIR, forms, PlayOptions(first=2_000)))
    assert sent.expected == expected(planned)
    assert sent.by_route == Counter(sending.route for sending in planned)
    assert (len(aws.entries), len(aws.records)) == (sent.by_route["bus"], sent.by_route["stream"])
    assert sent.expected[None] == 2_000
    assert {entry["EventBusName"] for entry in aws.entries} == {"b"}


def test_without_faults_readings_are_sent_unchanged_by_the_bus() -> None:
    sent, aws = played(WINTER, first=500, faults=False)
    assert sent.expected == {None: 500}
    assert not aws.records
    assert all(json.loads(entry["Detail"])["sent_at"] for entry in aws.entries)
    by_station: dict[str, list[str]] = {}
    for entry in aws.entries:
        by_station.setdefault(entry["Resources"][0], []).append(json.loads(entry["Detail"])["time"])
    assert all(times == sorted(times) for times in by_station.values())


def test_an_event_without_a_sent_field_has_no_sent_time(tmp_path: Path) -> None:
    rules = {"door": DOOR}
    _, aws = played(doors(tmp_path), declared=rules, faults=False, via="stream")
    (record,) = aws.records
    assert json.loads(record["Data"])["detail"] == {"time": "1970-01-01T00:00:00Z", "door": "front"}


def test_encoders_depend_on_the_schema_versions() -> None:
    assert set(event_encoders(AIR)) == {JSON, GZIP, AVRO, AVRO_PAST}
    assert AVRO in event_encoders(PARCEL)


def test_an_invalid_schema_is_a_config_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "door.avsc").write_text("{")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="door"):
        event_encoders(DOOR)
