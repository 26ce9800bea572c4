"""`stream-app failures ls | stats`: find failures, count them by cause, and list dead letters."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stream_app.errors import ConfigError
from stream_app.local.server.faults import Trim, inject
from stream_app.recovery.dead_letters import DeadLetter
from stream_app.recovery.hydrate.batch import hydrate, hydrate_batch
from tests.contracts.failing import HOUR, NOW, dead_letters, failed, properties, run, told
from tests.contracts.hydrating import Meddled, dependencies, event, of_pipe, own, put_all

__all__ = ["dead_letters", "properties"]  # fixtures


def test_ls_defaults_to_the_last_day_and_applies_filters(
    properties: Path, dead_letters: list[DeadLetter]
) -> None:
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
        ("--shard", dead_letters[0].shard, "--partition", dead_letters[0].partition_key): sum(
            (one.shard, one.partition_key) == (dead_letters[0].shard, dead_letters[0].partition_key)
            for one in dead_letters
        ),
        ("--consumer", "other"): 0,
        ("--hour", time.strftime("%Y-%m-%dT%H", time.gmtime((NOW - 96 * HOUR) / 1000))): 1,
    }
    for options, count in asked.items():
        assert len(told(properties, "ls", *options)["failures"]) == count, options


def test_a_row_identifies_its_record(properties: Path, dead_letters: list[DeadLetter]) -> None:
    [row] = told(properties, "ls", "--code", "UNDECODABLE")["failures"]
    one = dead_letters[7]
    assert row["reason"] == one.reason
    assert (row["shard"], row["sequence"], row["sub"]) == one.position
    assert (row["status"], row["event"], row["partition_key"]) == ("open", None, "Dongsi")
    assert row["key"].startswith("failures/air/")
    assert "payload" not in row


def test_a_limited_list_reports_that_there_is_more(properties: Path, dead_letters: list[DeadLetter]) -> None:
    some = told(properties, "ls", "--limit", "3")
    assert (len(some["failures"]), some["more"]) == (3, True)
    assert not told(properties, "ls", "--limit", "8")["more"]
    assert "there are more" in run(properties, "ls", "--limit", "3")


def test_text_written_by_a_sender_is_displayed_escaped(properties: Path, kinesis: Any, s3: Any) -> None:
    one = failed(kinesis, b"{}", partition_key="\x1b[31mred\x1b[0m", reason="[red]x[/red]")
    hydrate([one], dependencies(kinesis, s3))
    out = run(properties, "ls")
    assert "\x1b[31m" not in out
    assert "\\x1b[31mred" in out
    assert "[red]x[/red]" in out
    shown = run(properties, "show", one.sequence)
    assert "\x1b[31m" not in shown


def test_stats_groups_failures_by_cause_and_links_to_them(
    properties: Path, dead_letters: list[DeadLetter]
) -> None:
    counted = told(properties, "stats", "--since", "all")
    assert [one["count"] for one in counted["causes"]] == [7, 1, 1]
    assert counted["causes"][0]["devices"] == 3
    name = counted["causes"][0]["fingerprint"]
    assert len(told(properties, "ls", "--fingerprint", name)["failures"]) == 7
    out = run(properties, "stats", "--since", "all")
    assert out.count(name) == 1
    assert "9 failures: open 9" in out
    assert "RULE_BROKEN" in out
    assert run(properties, "stats", "--consumer", "other").startswith("no failures")


def test_the_stats_table_has_a_column_for_each_code(properties: Path, dead_letters: list[DeadLetter]) -> None:
    counted = told(properties, "stats", "--since", "all")
    total: dict[str, int] = {}
    for row in counted["by_time"]:
        for code, count in row["codes"].items():
            total[code] = total.get(code, 0) + count
    assert total == {"RULE_BROKEN": 7, "UNDECODABLE": 1, "FIELD_MISSING": 1}


def test_dead_letters_of_hydrated_ranges_are_listed(properties: Path, kinesis: Any, s3: Any) -> None:
    dead_letters = [msgspec.structs.replace(one, arrived=NOW) for one in put_all(kinesis, [b"1", b"2", b"3"])]
    inject(Trim("devices", sequence=dead_letters[1].sequence))
    bodies = [of_pipe(dead_letters[:1]), of_pipe(dead_letters[:2]), of_pipe(dead_letters[2:])]
    hydrate_batch(event(*bodies), dependencies(kinesis, s3))
    found = told(properties, "ls", "--dead-letters", "--consumer", "air-delivery")["letters"]
    assert sorted(one["state"] for one in found) == ["expired", "hydrated", "partial"]
    out = run(properties, "ls", "--letters", "--consumer", "air-delivery")
    assert "1 of 2 found" in out
    assert "its records have expired from the stream" in out
    assert run(properties, "ls", "--dead-letters").strip() == "no dead letters of pipes or functions"


def test_waiting_dead_letters_show_their_remaining_time(properties: Path, kinesis: Any, s3: Any) -> None:
    dead_letters = [failed(kinesis, b"1", hours) for hours in (3, 30, 23.5)]
    failing = Meddled(kinesis, dict.fromkeys({one.shard for one in dead_letters}, "AccessDeniedException"))
    hydrate_batch(event(*map(own, dead_letters)), dependencies(failing, s3))
    waiting = told(properties, "ls", "--waiting")["letters"]
    assert [one["vanishes"] for one in waiting] == [
        one.arrived + 24 * HOUR for one in sorted(dead_letters, key=lambda one: one.arrived)
    ]
    listed = told(properties, "ls")["waiting"]
    assert listed == {"count": 3, "first_vanishes": dead_letters[1].arrived + 24 * HOUR, "queued": None}
    out = run(properties, "ls", "--waiting")
    assert "expired at" in out
    assert "in 20 hours" in out
    assert "AccessDenied" in out
    assert "3 dead letters wait for hydration; the first payload expired at" in run(properties, "ls")
    hydrate_batch(event(*map(own, dead_letters), received=2), dependencies(kinesis, s3))
    assert run(properties, "ls", "--waiting").strip() == "no dead letters wait for hydration"


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
def test_contradictory_options_are_rejected_with_a_hint(
    properties: Path, s3: Any, options: tuple[str, ...]
) -> None:
    for command in ("ls", "stats"):
        with pytest.raises(ConfigError) as caught:
            run(properties, command, *options)
        assert all(problem.hint for problem in caught.value.problems)


def test_dead_letters_still_in_the_queue_are_counted(
    aws: Callable[[str], Any], properties: Path, dead_letters: list[DeadLetter]
) -> None:
    """An empty list must not hide that the dead letters have not been hydrated."""
    assert told(properties, "ls")["waiting"]["queued"] is None
    url = aws("sqs").create_queue(QueueName="dead-letters")["QueueUrl"]
    with properties.open("a") as file:
        file.write(f"app.dead_letter_queue = {url}\n")
    assert told(properties, "ls")["waiting"]["queued"] == 0
    assert "in the dead-letter queue" not in run(properties, "ls")
    for _ in range(2):
        aws("sqs").send_message(QueueUrl=url, MessageBody="{}")
    aws("sqs").receive_message(QueueUrl=url)
    assert told(properties, "ls")["waiting"]["queued"] == 2
    assert "2 dead letters are in the dead-letter queue" in run(properties, "ls", "--consumer", "nobody")
    aws("sqs").delete_queue(QueueUrl=url)
    assert told(properties, "ls")["waiting"]["queued"] is None
