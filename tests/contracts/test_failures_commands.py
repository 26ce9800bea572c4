"""`stream-app failures` at three in the morning: find what failed, count it by cause, and be told its whole story."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from stream_app.commands import failures as commands
from stream_app.errors import ConfigError
from stream_app.event import schema_files
from stream_app.local.faults import Trim, inject
from stream_app.pipeline.registry import Registry
from stream_app.recovery.dead_letters import DeadLetter
from stream_app.recovery.find_story import NoSuchFailureError
from stream_app.recovery.history import Done, History, Request
from stream_app.recovery.hydrate import hydrate, hydrate_batch
from stream_app.recovery.ledger import Ledger
from stream_app.recovery.ledger_items import Attempt, State
from stream_app.recovery.narrow import pipeline_judge
from stream_app.recovery.store import failure_keys
from tests import samples
from tests.contracts.hydrating import BUCKET, Meddled, event, of_pipe, own, put, put_all, world

NOW = round(time.time() * 1000)
HOUR = 3_600_000


@pytest.fixture
def s3(aws: Callable[[str], Any]) -> Any:
    client = aws("s3")
    client.create_bucket(Bucket=BUCKET)
    return client


@pytest.fixture
def kinesis(aws: Callable[[str], Any], stream: str) -> Any:
    return aws("kinesis")


@pytest.fixture
def properties(tmp_path: Path) -> Path:
    file = tmp_path / "test.properties"
    file.write_text(
        f"applicationName = air\nstreamName = devices\nregionName = us-east-1\napp.bucket = {BUCKET}\n"
    )
    return file


def run(properties: Path, command: str, *options: str, width: int = 200) -> str:
    """What a command says. Raises what it raises."""
    runner = CliRunner(env={"COLUMNS": str(width), "TERM": "dumb"})
    done = runner.invoke(commands.app, [command, "--properties", str(properties), *options])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return str(done.stdout)


def told(properties: Path, command: str, *options: str) -> Any:
    return json.loads(run(properties, command, *options, "--json"))


def failed(kinesis: Any, data: bytes, hours_ago: float = 0.0, **values: Any) -> DeadLetter:
    """A dead letter of a real record, that says of it what the test says."""
    known = {"arrived": NOW - round(hours_ago * HOUR), "event": "air_quality", **values}
    return msgspec.structs.replace(put(kinesis, data, values.get("partition_key", "Dongsi")), **known)


@pytest.fixture
def letters(kinesis: Any, s3: Any) -> list[DeadLetter]:
    """Two causes of today, and one of four days ago."""
    some = [
        *(
            failed(kinesis, b"{}", n / 60, reason=f"pm25 is -{n}, below 0", partition_key=f"S{n % 3}")
            for n in range(7)
        ),
        failed(
            kinesis, b"\xff\x00", 1, code="UNDECODABLE", event=None, reason="neither JSON, nor [bold]Avro"
        ),
        failed(kinesis, b"{}", 96, code="FIELD_MISSING", reason="station"),
    ]
    assert not hydrate(some, world(kinesis, s3)).failed
    return some


def test_the_list_is_of_the_last_day_and_narrows(properties: Path, letters: list[DeadLetter]) -> None:
    assert len(told(properties, "ls")["failures"]) == 8
    asked: dict[tuple[str, ...], int] = {
        ("--since", "all"): 9,
        ("--since", "7d", "--until", "2d"): 1,
        ("--code", "undecodable"): 1,
        ("--code", "UNDECODABLE", "--code", "RULE_BROKEN"): 8,
        ("--partition", "S1"): 2,
        ("--partition", "S"): 0,
        ("--reason", "BELOW 0"): 7,
        ("--event", "air_quality", "--since", "all"): 8,
        ("--status", "open"): 8,
        ("--status", "processed"): 0,
        ("--shard", letters[0].shard, "--partition", letters[0].partition_key): sum(
            (one.shard, one.partition_key) == (letters[0].shard, letters[0].partition_key) for one in letters
        ),
        ("--consumer", "other"): 0,
        ("--hour", time.strftime("%Y-%m-%dT%H", time.gmtime((NOW - 96 * HOUR) / 1000))): 1,
    }
    for options, count in asked.items():
        assert len(told(properties, "ls", *options)["failures"]) == count, options


def test_a_row_names_its_record(properties: Path, letters: list[DeadLetter]) -> None:
    [row] = told(properties, "ls", "--code", "UNDECODABLE")["failures"]
    one = letters[7]
    assert row["reason"] == one.reason
    assert (row["shard"], row["sequence"], row["sub"]) == one.position
    assert (row["status"], row["event"], row["partition_key"]) == ("open", None, "Dongsi")
    assert row["key"].startswith("failures/air/")
    assert "payload" not in row


def test_a_limit_says_that_there_is_more(properties: Path, letters: list[DeadLetter]) -> None:
    some = told(properties, "ls", "--limit", "3")
    assert (len(some["failures"]), some["more"]) == (3, True)
    assert not told(properties, "ls", "--limit", "8")["more"]
    assert "there are more" in run(properties, "ls", "--limit", "3")


def test_people_see_what_a_sender_wrote_as_it_is(properties: Path, kinesis: Any, s3: Any) -> None:
    one = failed(kinesis, b"{}", partition_key="\x1b[31mred\x1b[0m", reason="[red]x[/red]")
    hydrate([one], world(kinesis, s3))
    out = run(properties, "ls")
    assert "\x1b[31m" not in out
    assert "\\x1b[31mred" in out
    assert "[red]x[/red]" in out
    shown = run(properties, "show", one.sequence)
    assert "\x1b[31m" not in shown


def test_a_cause_is_one_line_and_leads_to_its_failures(properties: Path, letters: list[DeadLetter]) -> None:
    counted = told(properties, "stats", "--since", "all")
    assert [one["count"] for one in counted["causes"]] == [7, 1, 1]
    assert counted["causes"][0]["devices"] == 3
    name = counted["causes"][0]["fingerprint"]
    assert len(told(properties, "ls", "--fingerprint", name)["failures"]) == 7
    out = run(properties, "stats", "--since", "all")
    assert out.count(name) == 1
    assert "9 failures: open 9" in out
    assert "RULE_BROKEN" in out
    assert run(properties, "stats", "--consumer", "other").strip() == "no failures"


def test_the_table_has_a_column_for_each_code(properties: Path, letters: list[DeadLetter]) -> None:
    counted = told(properties, "stats", "--since", "all")
    total: dict[str, int] = {}
    for row in counted["by_time"]:
        for code, count in row["codes"].items():
            total[code] = total.get(code, 0) + count
    assert total == {"RULE_BROKEN": 7, "UNDECODABLE": 1, "FIELD_MISSING": 1}


@pytest.mark.parametrize("form", ["id", "key", "address", "position", "sequence"])
def test_a_record_is_shown_by_any_of_its_names(
    properties: Path, letters: list[DeadLetter], form: str
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


def test_the_story_of_our_own(properties: Path, kinesis: Any, s3: Any) -> None:
    registry = samples.registry()
    schema = registry.codecs["reading"].schema.fingerprint
    payload = {"event": "air_quality", "pm25": -1.5, "note": "ü"}
    one = failed(kinesis, json.dumps(payload).encode(), schema=schema)
    hydrate([one], world(kinesis, s3))
    story = told(properties, "show", one.sequence)
    assert (story["form"], story["payload"], story["status"]) == ("json", payload, "open")
    assert story["stored"]["dead_letter"] == msgspec.to_builtins(one)
    assert (story["correction"], story["redrives"], story["letter"]) == (None, [], None)
    assert story["schema"]["fingerprint"] == schema
    out = run(properties, "show", one.sequence)
    for word in ('"pm25": -1.5', '"note": "ü"', one.reason, one.sequence, schema, "none of the schemas here"):
        assert word in out


def test_the_schema_is_told_by_its_file(properties: Path, kinesis: Any, s3: Any) -> None:
    registry = Registry.load()
    current = registry.codecs["air_quality"].schema.fingerprint
    [past] = [
        name for name, (owner, _) in registry.writers.items() if owner == "air_quality" and name != current
    ]
    for fingerprint, words in (
        (current, "schemas/air_quality.avsc (the current one)"),
        (past, "schemas/air_quality.v1.avsc (a past version)"),
    ):
        one = failed(kinesis, b"{}", schema=fingerprint)
        hydrate([one], world(kinesis, s3))
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
)
def test_every_payload_can_be_looked_at(
    properties: Path, kinesis: Any, s3: Any, data: bytes, form: str, shown: str
) -> None:
    one = failed(kinesis, data)
    hydrate([one], world(kinesis, s3))
    assert told(properties, "show", one.sequence)["form"] == form
    assert shown in run(properties, "show", one.sequence)
    assert "\x1b[2J" not in run(properties, "show", one.sequence)


def test_the_story_of_a_range(properties: Path, kinesis: Any, s3: Any) -> None:
    def judge() -> Any:
        return pipeline_judge(samples.registry(), seen_ids=4, max_bytes=samples.MAX_BYTES)

    good = samples.as_json("reading", {"id": "1", "device": "d", "time": samples.START, "value": 1.0})
    letters = [msgspec.structs.replace(one, arrived=NOW) for one in put_all(kinesis, [good, b"?", good])]
    hydrate_batch(event(of_pipe(letters)), world(kinesis, s3, judge=judge))
    [row] = told(properties, "ls", "--consumer", "air-delivery")["failures"]
    story = told(properties, "show", row["id"], "--consumer", "air-delivery")
    assert (story["letter"]["state"], story["letter"]["found"]) == ("hydrated", 3)
    assert [run["verdict"] for run in story["letter"]["runs"]] == ["innocent", "failed", "innocent"]
    out = run(properties, "show", row["key"])
    assert "1 failures, 2 innocent" in out
    assert "RetryAttemptsExhausted" in out


def test_what_was_left_of_ranges_can_be_seen(properties: Path, kinesis: Any, s3: Any) -> None:
    letters = [msgspec.structs.replace(one, arrived=NOW) for one in put_all(kinesis, [b"1", b"2", b"3"])]
    inject(Trim("devices", sequence=letters[1].sequence))
    bodies = [of_pipe(letters[:1]), of_pipe(letters[:2]), of_pipe(letters[2:])]
    hydrate_batch(event(*bodies), world(kinesis, s3))
    found = told(properties, "ls", "--letters", "--consumer", "air-delivery")["letters"]
    assert sorted(one["state"] for one in found) == ["expired", "hydrated", "partial"]
    out = run(properties, "ls", "--letters", "--consumer", "air-delivery")
    assert "1 of 2 found" in out
    assert "its records have left the stream" in out
    assert run(properties, "ls", "--letters").strip() == "no dead letters of pipes or functions"


def test_a_payload_that_had_left_the_stream(properties: Path, kinesis: Any, s3: Any) -> None:
    one = msgspec.structs.replace(failed(kinesis, b"{}"), shard="shardId-000000000099")
    hydrate([one], world(kinesis, s3))
    assert told(properties, "ls", "--status", "expired")["failures"][0]["sequence"] == one.sequence
    assert "it had left the stream" in run(properties, "show", one.sequence)


def test_what_waits_shows_its_clock(properties: Path, kinesis: Any, s3: Any) -> None:
    letters = [failed(kinesis, b"1", hours) for hours in (3, 30, 23.5)]
    failing = Meddled(kinesis, dict.fromkeys({one.shard for one in letters}, "AccessDeniedException"))
    hydrate_batch(event(*map(own, letters)), world(failing, s3))
    waiting = told(properties, "ls", "--waiting")["letters"]
    assert [one["vanishes"] for one in waiting] == [
        one.arrived + 24 * HOUR for one in sorted(letters, key=lambda one: one.arrived)
    ]
    listed = told(properties, "ls")["waiting"]
    assert listed == {"count": 3, "first_vanishes": letters[1].arrived + 24 * HOUR}
    out = run(properties, "ls", "--waiting")
    assert "vanished at" in out
    assert "in 20 hours" in out
    assert "AccessDenied" in out
    assert "3 dead letters wait to be hydrated; the first payload vanished at" in run(properties, "ls")
    hydrate_batch(event(*map(own, letters), received=2), world(kinesis, s3))
    assert run(properties, "ls", "--waiting").strip() == "no dead letter waits"


def test_an_object_that_is_no_failure_is_told(properties: Path, letters: list[DeadLetter], s3: Any) -> None:
    key = next(iter(failure_keys(s3, BUCKET, "air"))).replace("-0.json", "-7.json")
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"?")
    found = told(properties, "ls", "--since", "all")
    assert (len(found["failures"]), found["unreadable"]) == (9, [key])
    with pytest.raises(NoSuchFailureError, match="not a stored failure"):
        run(properties, "show", key)


@pytest.mark.parametrize("name", ["0123456789", "shardId-000000000000/1", "7"])
def test_a_name_of_nothing_is_told(properties: Path, letters: list[DeadLetter], name: str) -> None:
    with pytest.raises(NoSuchFailureError, match=name):
        run(properties, "show", name)


@pytest.mark.parametrize(
    "options",
    [
        ("--since", "yesterday"),
        ("--since", "2026-13-01"),
        ("--since", "1h", "--until", "2h"),
        ("--hour", "all"),
        ("--status", "done"),
        ("--since", "999999w"),
    ],
)
def test_a_question_that_cannot_be_meant_is_refused_with_a_hint(
    properties: Path, s3: Any, options: tuple[str, ...]
) -> None:
    for command in ("ls", "stats"):
        with pytest.raises(ConfigError) as caught:
            run(properties, command, *options)
        assert all(problem.hint for problem in caught.value.problems)


def test_the_story_goes_on_with_corrections_and_redrives(
    properties: Path, kinesis: Any, s3: Any, aws: Callable[[str], Any]
) -> None:
    one = failed(kinesis, b"{}")
    [key] = hydrate([one], world(kinesis, s3)).written
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
    assert ledger.settle(attempt, State.SENT, "as planned")
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
        asked, Done(key="k", version="v2", version_before="v1", before={"pm25": 1}, after={"pm25": 2})
    )
    story = told(properties, "show", key)
    assert [(one["attempt"], one["state"]) for one in story["redrives"]] == [(1, "sent")]
    assert story["correction"]["done"]["after"] == {"pm25": 2}
    out = run(properties, "show", key)
    for word in ("plan-7", "bus:air", "ada", "as planned", "NearestValue", '{"pm25": 2}', "v2"):
        assert word in out
