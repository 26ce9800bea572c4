"""`stream-app corrections`: list, show, retry and reapply corrections."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stream_app import app as root
from stream_app.cli import corrections
from stream_app.errors import ConfigError, FatalError
from stream_app.pipeline.registry import Registry
from stream_app.recovery.correct.request import correct
from tests.contracts.correcting import APPLICATION, BUCKET, STREAM, CorrectionCase, checked, reading

Run = Callable[..., str]


@pytest.fixture
def dependencies(aws: Callable[[str], Any]) -> CorrectionCase:
    made = CorrectionCase(aws, checked())
    made.store([reading("a", hour, v) for hour, v in enumerate([1.0, 2.0, 50.0, 3.0])], (4,))
    made.checkpoint()
    for at in (0, 2, 2):
        correct(made.request(at), made.history, made.corrector(), lambda _refusal: None)
    return made


@pytest.fixture
def run(dependencies: CorrectionCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    file = tmp_path / "app.properties"
    file.write_text(f"applicationName = {APPLICATION}\nstreamName = {STREAM}\napp.bucket = {BUCKET}\n")

    def clients(_environ: Mapping[str, str], *_: Any, **__: Any) -> Any:
        return dependencies.aws

    monkeypatch.setattr(root, "clients", clients)
    monkeypatch.setattr(corrections, "load_registry", lambda **_: dependencies.registry)

    def invoke(*arguments: str) -> str:
        result = CliRunner().invoke(
            corrections.app, [*arguments, "--properties", str(file)], env={"COLUMNS": "400"}
        )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return invoke


def place(dependencies: CorrectionCase, at: int) -> str:
    return str(dependencies.records[at].position(dependencies.shard))


def test_ls_lists_corrections_and_manual_reviews(dependencies: CorrectionCase, run: Run) -> None:
    listed = json.loads(run("ls", "--json"))
    assert [entry["status"] for entry in listed] == ["manual", "corrected"]
    assert [entry["request"]["sequence"] for entry in listed] == [
        dependencies.records[at].sequence_number for at in (0, 2)
    ]
    assert len(json.loads(run("ls", "--json", "--manual"))) == 1
    assert len(json.loads(run("ls", "--json", "--limit", "1"))) == 1
    text = run("ls")
    assert place(dependencies, 2) in text
    assert "the declared correction changes nothing" in text
    assert "0 messages in the manual-review queue" in text


def test_show_prints_the_values_before_and_after(dependencies: CorrectionCase, run: Run) -> None:
    text = run("show", place(dependencies, 2))
    assert '"value":50.0' in text
    assert '"value":null' in text
    assert json.loads(run("show", place(dependencies, 2), "--json"))["done"]["before"]["value"] == 50.0
    with pytest.raises(ConfigError, match="no correction was requested"):
        run("show", place(dependencies, 1))
    with pytest.raises(ConfigError, match="is not a position"):
        run("show", "somewhere")


def test_retry_corrects_a_previously_rejected_request(dependencies: CorrectionCase, run: Run) -> None:
    with pytest.raises(FatalError, match="changes nothing"):
        run("retry", place(dependencies, 0))
    event = checked(correct=lambda batch: {"value": batch["value"] + 1})
    dependencies.registry = Registry.of(
        [event], {"reading": [dependencies.registry.codecs["reading"].schema.parsed]}
    )
    assert "corrected, manual" in run("retry", place(dependencies, 0), "--by", "mary")
    with pytest.raises(FatalError, match="already corrected once"):
        run("retry", place(dependencies, 0))


def test_reapply_restores_missing_corrections(dependencies: CorrectionCase, run: Run) -> None:
    assert json.loads(run("reapply", "--json")) == {"applied": 0, "there": 1, "early": 0, "impossible": []}
    entry = dependencies.history.get(APPLICATION, dependencies.records[2].position(dependencies.shard))
    assert entry is not None
    assert entry.done is not None
    dependencies.s3.delete_object(Bucket=BUCKET, Key=entry.done.key)
    dependencies.write(dependencies.segments[0])
    assert json.loads(run("reapply", "--json"))["applied"] == 1
    assert "reapplied 0; 1 were present already" in run("reapply")
