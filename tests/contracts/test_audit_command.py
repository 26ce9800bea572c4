"""`stream-app audit` while no consumer runs: recent records are pending, overdue ones do not balance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from stream_app.cli.main import app
from stream_app.errors import ConfigError
from tests.contracts.test_recovery_audit import BUCKET, CONSUMER, STREAM, kinesis

__all__ = ["kinesis"]  # a fixture


@pytest.fixture
def properties(tmp_path: Path) -> Path:
    file = tmp_path / "test.properties"
    file.write_text(
        f"applicationName = {CONSUMER}\nstreamName = {STREAM}\nregionName = us-east-1\napp.bucket = {BUCKET}\n"
    )
    return file


def run(properties: Path, *options: str) -> Result:
    runner = CliRunner(env={"COLUMNS": "300", "TERM": "dumb"})
    return runner.invoke(app, ["audit", "--properties", str(properties), *options])


def test_recent_records_are_pending_and_the_audit_balances(properties: Path, kinesis: Any, s3: Any) -> None:
    done = run(properties)
    assert done.exit_code == 0, done.output
    assert "balanced: every accepted record" in done.output
    told = json.loads(run(properties, "--pending-for", "1h", "--json").stdout)
    assert (told["balanced"], told["total"]["pending"], told["total"]["overdue"]) == (True, 60, 0)


def test_overdue_records_do_not_balance_and_their_shards_are_named(
    properties: Path, kinesis: Any, s3: Any
) -> None:
    # What arrived last is not older than 0 s by the stream's own clock: one more record makes the others older.
    kinesis.put_record(StreamName=STREAM, PartitionKey="last", Data=b"0")
    done = run(properties, "--pending-for", "0s")
    assert done.exit_code == 1
    assert "NOT balanced" in done.output
    assert "no consumer has read shard shardId-000000000000 since 20" in done.output
    assert "its checkpoint is TRIM_HORIZON, no segment was stored" in done.output
    machine = run(properties, "--pending-for", "0s", "--json")
    assert machine.exit_code == 1
    told = json.loads(machine.stdout)
    assert told["balanced"] is False
    assert told["total"]["overdue"] >= 1
    waiting = [shard["waiting"] for shard in told["shards"] if shard["waiting"]]
    assert all(one["message"].startswith("no consumer has read shard") for one in waiting)
    assert sum(one["records"] for one in waiting) == told["total"]["overdue"]


def test_an_invalid_limit_is_rejected_before_reading(properties: Path) -> None:
    done = run(properties, "--pending-for", "soon")
    assert isinstance(done.exception, ConfigError)
    assert "'soon'" in done.exception.problems[0].what
