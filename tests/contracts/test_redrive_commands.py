"""`stream-app failures plan | apply | reconcile | discard`, as a person types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from stream_app.cli import redrive as commands
from stream_app.errors import ConfigError
from stream_app.event_loading import load_registry
from stream_app.recovery.find.query import handle
from stream_app.recovery.redrive.plan.file import parse
from tests.contracts import redriving as on
from tests.contracts.redriving import BUCKET, statuses
from tests.contracts.redriving_pipeline import Pipeline
from tests.contracts.test_redrive_http import endpoint

REPAIR = {
    "name": "negative is nothing",
    "when": [{"field": "pm25", "is": "below", "value": 0}],
    "steps": [{"do": "set", "field": "pm25", "value": None}],
}


@pytest.fixture
def pipeline(aws: Callable[[str], Any], stream: str) -> Pipeline:
    made = Pipeline(aws, load_registry())
    for hour in range(4):
        detail = {
            "id": f"Dongsi/{hour}",
            "station": "Dongsi",
            "time": f"2016-12-01T0{hour}:00:00Z",
            "pm25": -5.0,
        }
        made.publish("air_quality", "Dongsi", detail)
    made.publish("air_quality", "Dongsi", {"id": "x", "station": "Dongsi", "pm25": 1})
    made.run()
    return made


@pytest.fixture
def properties(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "test.properties"
    known = on.settings()
    lines = {
        "applicationName": known.application,
        "streamName": known.stream,
        "regionName": known.region,
        "app.bucket": BUCKET,
        "app.bus": known.bus,
        "app.latest_table": known.latest_table,
    }
    file.write_text("".join(f"{name} = {value}\n" for name, value in lines.items()))
    monkeypatch.setenv("STREAM_APP_HISTORY_TABLE", on.HISTORY)
    return file


def run(properties: Path, command: str, *arguments: str, code: int = 0) -> Result:
    runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})
    done = runner.invoke(commands.app, [command, *arguments, "--properties", str(properties)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done


def planned(properties: Path, tmp_path: Path, *arguments: str) -> Path:
    file = tmp_path / "plan.json"
    file.write_text(run(properties, "plan", *arguments).stdout)
    return file


def test_from_plan_to_processed(pipeline: Pipeline, properties: Path, tmp_path: Path) -> None:
    repair = tmp_path / "repair.json"
    repair.write_text(json.dumps(REPAIR))
    made = run(
        properties, "plan", "--select", "code=RULE_BROKEN,since=24h", "--repair", str(repair), "--to", "bus"
    )
    plan = parse(made.stdout)
    assert (plan.sent, plan.expected, plan.by != "") == (4, {"stored": 4}, True)
    for told in ("4 of 4 selected failures", "bus air", "negative is nothing", "stored 4", "-5.0", "null"):
        assert told in made.stderr
    file = tmp_path / "plan.json"
    file.write_text(made.stdout)
    rehearsed = run(properties, "apply", str(file), "--dry-run", "--json")
    assert json.loads(rehearsed.stdout)["left"] == 4
    assert statuses(pipeline.client("s3"), pipeline.failures()) == {"open": 5}
    done = json.loads(run(properties, "apply", str(file), "--rate", "1000/s", "--json").stdout)
    assert (done["sent"], done["complete"]) == (4, True)
    pipeline.run()
    found = json.loads(run(properties, "reconcile", str(file), "--json").stdout)
    assert (found["processed"], found["waiting"]) == (4, 0)
    assert statuses(pipeline.client("s3"), pipeline.failures()) == {"processed": 4, "open": 1}
    again = run(properties, "apply", str(file))
    assert "4 were sent before" in again.stderr


def test_apply_can_wait_for_the_pipeline(pipeline: Pipeline, properties: Path, tmp_path: Path) -> None:
    repair = tmp_path / "repair.json"
    repair.write_text(json.dumps(REPAIR))
    file = planned(
        properties, tmp_path, "--select", "code=RULE_BROKEN", "--repair", str(repair), "--to", "stream"
    )
    assert (
        run(properties, "apply", str(file), "--wait", "0.01", code=1).stderr.count("not processed yet") == 1
    )
    pipeline.run()
    assert "processed 4" in run(properties, "apply", str(file), "--wait", "30").stderr


def test_one_failure_is_named_by_its_id(pipeline: Pipeline, properties: Path, tmp_path: Path) -> None:
    key = pipeline.failures()[0]
    plan = parse(run(properties, "plan", "--select", f"key={handle(key)}", "--to", "bus").stdout)
    assert [item.key for item in plan.items] == [key]
    assert plan.expected == {"RULE_BROKEN": 1}


def test_an_endpoint_is_sent_a_secret_that_no_file_holds(
    pipeline: Pipeline, properties: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with endpoint() as received:
        file = planned(
            properties,
            tmp_path,
            *("--select", "code=RULE_BROKEN", "--to", received.url, "--auth", "Authorization=env:API_TOKEN"),
        )
        with pytest.raises(ConfigError, match="API_TOKEN is not set"):
            run(properties, "apply", str(file))
        monkeypatch.setenv("API_TOKEN", "Bearer s3cret")
        done = run(properties, "apply", str(file))
    assert len(received.requests) == 4
    assert {headers["Authorization"] for _, headers, _ in received.requests} == {"Bearer s3cret"}
    assert "s3cret" not in file.read_text() + done.output
    table = pipeline.client("dynamodb").scan(TableName=on.HISTORY)["Items"]
    assert "s3cret" not in json.dumps(table)


def test_failures_are_discarded_for_a_reason(pipeline: Pipeline, properties: Path) -> None:
    with pytest.raises(ConfigError, match="reason"):
        run(properties, "discard", "--select", "code=RULE_BROKEN", "--reason", " ")
    done = run(properties, "discard", "--select", "code=RULE_BROKEN", "--reason", "sensor replaced", "--json")
    assert json.loads(done.stdout) == {"count": 4, "busy": []}
    assert statuses(pipeline.client("s3"), pipeline.failures()) == {"discarded": 4, "open": 1}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--to", "nowhere"], "neither bus, stream nor a URL"),
        (["--to", "bus", "--newer", "perhaps"], "skip, apply, replay"),
        (["--to", "bus", "--select", "size=1"], "is not valid"),
        (["--to", "https://example.com/", "--auth", "Bearer abc"], "source of the secret"),
        (["--to", "bus", "--select", "key=0123456789"], "no failure"),
    ],
)
def test_what_makes_no_sense_is_said(
    pipeline: Pipeline, properties: Path, arguments: list[str], told: str
) -> None:
    select = [] if "--select" in arguments else ["--select", "status=open"]
    with pytest.raises(Exception, match=told):
        run(properties, "plan", *select, *arguments)


@pytest.mark.parametrize("rate", ["0", "fast", "-1/s", "inf"])
def test_a_rate_that_is_none_is_refused(
    pipeline: Pipeline, properties: Path, tmp_path: Path, rate: str
) -> None:
    file = planned(properties, tmp_path, "--select", "status=open", "--to", "bus")
    with pytest.raises(ConfigError, match="invalid --rate"):
        run(properties, "apply", str(file), "--rate", rate)
