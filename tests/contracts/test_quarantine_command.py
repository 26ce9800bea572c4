"""`stream-app quarantine`: list and release quarantined records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stream_app.cli.quarantine import app
from stream_app.errors import ConfigError
from stream_app.sinks.quarantine import S3QuarantineStore
from tests.contracts.test_sink_quarantine import BUCKET, SHARD, decision


@pytest.fixture
def properties(tmp_path: Path, s3: Any) -> str:
    store = S3QuarantineStore(s3, BUCKET, "app")
    for one in (decision(12, 2), decision(9, code="PROCESS_KILLED", event=None)):
        store.decide(one)
    file = tmp_path / "test.properties"
    file.write_text(f"applicationName = app\nstreamName = s\nregionName = us-east-1\napp.bucket = {BUCKET}\n")
    return str(file)


def run(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def test_quarantined_records_are_listed_by_position(properties: str) -> None:
    assert run("ls", "--properties", properties).stdout.splitlines() == [
        f"{SHARD}/9  PROCESS_KILLED  -  calculate: too long",
        f"{SHARD}/12.2  TIMED_OUT  reading  calculate: too long",
    ]
    told = json.loads(run("ls", "--properties", properties, "--json").stdout)
    assert [one["sequence"] for one in told["quarantined"]] == ["9", "12"]


def test_a_record_is_released_once(properties: str, s3: Any) -> None:
    assert run("forget", f"{SHARD}/12.2", "--properties", properties).exit_code == 0
    assert run("forget", f"{SHARD}/12.2", "--properties", properties).exit_code == 1
    assert [one.sequence for one in S3QuarantineStore(s3, BUCKET, "app").decisions(SHARD)] == ["9"]


@pytest.mark.parametrize("text", ["", "9", f"{SHARD}/", f"{SHARD}/nine"])
def test_an_invalid_position_is_rejected(properties: str, text: str) -> None:
    assert isinstance(run("forget", text, "--properties", properties).exception, ConfigError)
