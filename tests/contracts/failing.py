"""What the tests of `stream-app failures` share: a store, dead letters of real records, and the commands."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from stream_app.cli import failures as commands
from stream_app.recovery.dead_letters import DeadLetter
from stream_app.recovery.hydrate.batch import hydrate
from tests.contracts.hydrating import BUCKET, dependencies, put

NOW = round(time.time() * 1000)
HOUR = 3_600_000


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
def dead_letters(kinesis: Any, s3: Any) -> list[DeadLetter]:
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
    assert not hydrate(some, dependencies(kinesis, s3)).failed
    return some
