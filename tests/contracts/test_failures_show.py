"""`stream-app failures show`: the full history of a failure."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stream_app.event_loading import load_registry, schema_files
from stream_app.recovery.correct.history import History
from stream_app.recovery.correct.history_entry import Correction, Request
from stream_app.recovery.dead_letters import DeadLetter
from stream_app.recovery.failure_details import NoSuchFailureError
from stream_app.recovery.hydrate.batch import hydrate, hydrate_batch
from stream_app.recovery.hydrate.trial import pipeline_trials
from stream_app.recovery.redrive.ledger.claims import Ledger
from stream_app.recovery.redrive.ledger.items import Attempt, State
from stream_app.recovery.store import failure_keys
from tests import samples
from tests.contracts.failing import NOW, dead_letters, failed, properties, run, told
from tests.contracts.hydrating import BUCKET, dependencies, event, of_pipe, put_all

__all__ = ["dead_letters", "properties"]  # fixtures


@pytest.mark.parametrize("form", ["id", "key", "address", "position", "sequence"])
def test_a_record_can_be_shown_by_any_identifier(
    properties: Path, dead_letters: list[DeadLetter], form: str
) -> None:
    [row] = told(properties, "ls", "--code", "UNDECODABLE")["failures"]
    name = {
        "id": row["id"],
        "key": row["key"],
        "address": f"s3://{BUCKET}/{row['key']}",
        "position": f"{row['shard']}/{row['sequence']}",
        "sequence": row["sequence"],
    }[form]
    assert told(properties, "show", name)["key"] == row["key"]


def test_show_prints_a_failure_of_the_consumer(properties: Path, kinesis: Any, s3: Any) -> None:
    registry = samples.registry()
    schema = registry.codecs["reading"].schema.fingerprint
    payload = {"event": "air_quality", "pm25": -1.5, "note": "ü"}
    one = failed(kinesis, json.dumps(payload).encode(), schema=schema)
    hydrate([one], dependencies(kinesis, s3))
    story = told(properties, "show", one.sequence)
    assert (story["form"], story["payload"], story["status"]) == ("json", payload, "open")
    assert story["stored"]["dead_letter"] == msgspec.to_builtins(one)
    assert (story["correction"], story["redrives"], story["letter"]) == (None, [], None)
    assert story["schema"]["fingerprint"] == schema
    out = run(properties, "show", one.sequence)
    for word in ('"pm25": -1.5', '"note": "ü"', one.reason, one.sequence, schema, "not among the schemas"):
        assert word in out


def test_show_names_the_schema_file(properties: Path, kinesis: Any, s3: Any) -> None:
    registry = load_registry()
    current = registry.codecs["air_quality"].schema.fingerprint
    [past] = [
        name for name, (owner, _) in registry.writers.items() if owner == "air_quality" and name != current
    ]
    for fingerprint, words in (
        (current, "schemas/air_quality.avsc (current version)"),
        (past, "schemas/air_quality.v1.avsc (earlier version)"),
    ):
        one = failed(kinesis, b"{}", schema=fingerprint)
        hydrate([one], dependencies(kinesis, s3))
        assert words in run(properties, "show", one.sequence)


AVRO = samples.as_avro(
    {"id": "a/1", "station": "a", "time": samples.START, "pm25": 3.5},
    json.loads(schema_files("air_quality")[0].read_text(encoding="utf-8")),
)


@pytest.mark.parametrize(
    ("data", "form", "shown"),
    [
        (gzip.compress(b'{"a": [1, 2]}'), "gzip, json", '"a": ['),
        (AVRO, "avro", '"pm25": 3.5'),
        (gzip.compress(AVRO), "gzip, avro", '"station": "a"'),
        (AVRO[:-4], "bytes", "c3 01"),
        (b"plain \x1b[2Jtext", "text", "plain \\x1b[2Jtext"),
        (b"\xff\x00\x01abc", "bytes", "00000000  ff 00 01 61 62 63"),
        (b"\xf3\x89\x9a\xc2 not one", "KPL aggregate", "f3 89 9a c2"),
        (gzip.compress(b"x" * 3_000_000), "bytes", "1f 8b"),
        (b"", "text", "payload: text, 0 bytes"),
    ],
    # Not the bytes: a gzip holds the time at which it was made, and each process of the tests makes its own.
    ids=["gzip", "avro", "packed-avro", "cut-avro", "text", "bytes", "aggregate", "long-gzip", "nothing"],
)
def test_every_payload_format_can_be_shown(
    properties: Path, kinesis: Any, s3: Any, data: bytes, form: str, shown: str
) -> None:
    one = failed(kinesis, data)
    hydrate([one], dependencies(kinesis, s3))
    assert told(properties, "show", one.sequence)["form"] == form
    assert shown in run(properties, "show", one.sequence)
    assert "\x1b[2J" not in run(properties, "show", one.sequence)


def test_show_prints_a_failure_from_a_dead_letter_range(properties: Path, kinesis: Any, s3: Any) -> None:
    def trial_factory() -> Any:
        return pipeline_trials(samples.registry(), seen_ids=4, max_bytes=samples.MAX_BYTES)

    good = samples.as_json("reading", {"id": "1", "device": "d", "time": samples.START, "value": 1.0})
    dead_letters = [msgspec.structs.replace(one, arrived=NOW) for one in put_all(kinesis, [good, b"?", good])]
    hydrate_batch(event(of_pipe(dead_letters)), dependencies(kinesis, s3, trial_factory=trial_factory))
    [row] = told(properties, "ls", "--consumer", "air-delivery")["failures"]
    story = told(properties, "show", row["id"], "--consumer", "air-delivery")
    assert (story["letter"]["state"], story["letter"]["found"]) == ("hydrated", 3)
    assert [run["verdict"] for run in story["letter"]["runs"]] == ["innocent", "failed", "innocent"]
    out = run(properties, "show", row["key"])
    assert "1 failed, 2 without failure" in out
    assert "RetryAttemptsExhausted" in out


def test_show_reports_an_expired_payload(properties: Path, kinesis: Any, s3: Any) -> None:
    one = msgspec.structs.replace(failed(kinesis, b"{}"), shard="shardId-000000000099")
    hydrate([one], dependencies(kinesis, s3))
    assert told(properties, "ls", "--status", "expired")["failures"][0]["sequence"] == one.sequence
    assert "the record had left the stream" in run(properties, "show", one.sequence)


def test_an_unreadable_failure_object_is_reported(
    properties: Path, dead_letters: list[DeadLetter], s3: Any
) -> None:
    key = next(iter(failure_keys(s3, BUCKET, "air"))).replace("-0.json", "-7.json")
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"?")
    found = told(properties, "ls", "--since", "all")
    assert (len(found["failures"]), found["unreadable"]) == (9, [key])
    with pytest.raises(NoSuchFailureError, match="not a stored failure"):
        run(properties, "show", key)


@pytest.mark.parametrize("name", ["0123456789", "shardId-000000000000/1", "7"])
def test_an_unknown_identifier_is_reported(
    properties: Path, dead_letters: list[DeadLetter], name: str
) -> None:
    with pytest.raises(NoSuchFailureError, match=name):
        run(properties, "show", name)


def test_show_includes_corrections_and_redrives(
    properties: Path, kinesis: Any, s3: Any, aws: Callable[[str], Any]
) -> None:
    one = failed(kinesis, b"{}")
    [key] = hydrate([one], dependencies(kinesis, s3)).written
    assert told(properties, "show", key)["redrives"] == [], "there is no table yet"
    dynamodb = aws("dynamodb")
    names = [("pk", "HASH"), ("sk", "RANGE")]
    dynamodb.create_table(
        TableName="air-history",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name, _ in names],
        KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in names],
    )
    ledger = Ledger(dynamodb, "air-history", "somebody", lambda: NOW)
    attempt = Attempt(
        root=key,
        attempt=1,
        failure=key,
        plan="plan-7",
        target="bus:air",
        token="t",
        state=State.CLAIMED,
        by="ada",
    )
    ledger.claim(attempt)
    assert ledger.complete(attempt, State.SENT, "as planned")
    history = History(dynamodb, "air-history", lambda: NOW)
    asked = Request(
        id="r",
        event="air_quality",
        key="Dongsi",
        consumer="air",
        shard=one.shard,
        sequence=one.sequence,
        arrived=one.arrived,
        by="NearestValue",
    )
    history.start(asked)
    history.finish(
        asked, Correction(key="k", version="v2", version_before="v1", before={"pm25": 1}, after={"pm25": 2})
    )
    story = told(properties, "show", key)
    assert [(one["attempt"], one["state"]) for one in story["redrives"]] == [(1, "sent")]
    assert story["correction"]["done"]["after"] == {"pm25": 2}
    out = run(properties, "show", key)
    for word in ("plan-7", "bus:air", "ada", "as planned", "NearestValue", '{"pm25": 2}', "v2"):
        assert word in out
