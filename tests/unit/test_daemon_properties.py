"""The effective properties file: Java and Python read the same values, and it contains no secret."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.daemon.properties import (
    effective,
    from_environment,
    private_file,
    problems,
    render,
)
from stream_app.errors import ConfigError
from stream_app.resources import shipped
from stream_app.settings import Settings, parse_properties, read_properties

NAMES = st.from_regex(r"[a-zA-Z][a-zA-Z0-9._]{0,20}", fullmatch=True)
VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\\"), max_size=30)
SHIPPED = [shipped("properties") / name for name in ("local.properties", "production.properties")]


@given(st.dictionaries(NAMES, VALUES), st.dictionaries(NAMES, VALUES | st.none()))
def test_rendered_properties_are_parsed_back(base: dict[str, str], overrides: dict[str, str | None]) -> None:
    read = parse_properties(render(base, overrides))
    assert read == effective(base, overrides)
    assert all(read.get(name) == value for name, value in overrides.items())


@given(st.dictionaries(NAMES, VALUES), NAMES, VALUES, st.sampled_from(["é", "\\", "\n", "\x00", "\u2028"]))
def test_properties_that_java_reads_differently_are_rejected(
    base: dict[str, str], name: str, value: str, odd: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        render(base, {name: value + odd})
    assert name in refused.value.problems[0].what


def test_environment_variables_override_daemon_properties() -> None:
    environ = {
        "STREAM_APP_STREAM": "s",
        "STREAM_APP_WORKER_ID": "",
        "STREAM_APP_SEGMENT_SECONDS": "5",
        "X": "y",
    }
    assert from_environment(environ) == {"streamName": "s"}


@pytest.fixture
def path(tmp_path: Path) -> str:
    program = tmp_path / "stream-app-consumer"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return str(tmp_path)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
class TestShippedFiles:
    def test_has_no_problems(self, file: Path, path: str) -> None:
        properties = read_properties(file)
        assert problems(properties, path) == []
        assert parse_properties(render(properties, {})) == properties

    def test_is_valid_for_the_application(self, file: Path, path: str) -> None:
        settings = Settings.load({}, read_properties(file))
        assert (settings.application, settings.stream) == ("stream-app", "stream-app")

    def test_has_no_custom_endpoint(self, file: Path, path: str) -> None:
        assert not [name for name in read_properties(file) if "endpoint" in name.lower()]

    @pytest.mark.parametrize("name", ["timeoutInSeconds", "shutdownGraceMillis"])
    def test_a_missing_property_that_kcl_does_not_check_is_reported(
        self, file: Path, path: str, name: str
    ) -> None:
        base = read_properties(file)
        for value in (None, "0", "soon", "-1"):
            assert [p for p in problems(effective(base, {name: value}), path) if name in p.what]


def test_all_problems_are_reported_together(path: str) -> None:
    what = [problem.what for problem in problems({"executableName": "no-such-program --x"}, path)]
    for name in (
        "applicationName",
        "streamName",
        "AwsCredentialsProvider",
        "timeoutInSeconds",
        "no-such-program",
    ):
        assert [w for w in what if name in w], name
    assert all(problem.hint for problem in problems({}, path))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("app.api_token", "x"),
        ("dbPassword", "x"),
        ("AwsCredentialsProvider", "StaticCredentialsProvider|AKIA|hush"),
        ("AwsCredentialsProviderDynamoDB", "BasicCredentialsProvider|AKIA|hush"),
    ],
)
def test_a_secret_is_rejected_without_printing_its_value(name: str, value: str, path: str) -> None:
    found = [problem for problem in problems({name: value}, path) if "secret" in problem.what]
    assert [problem.what for problem in found] == [f"property {name} contains a secret"]
    assert "hush" not in str(found)


def test_the_effective_file_is_private_and_deleted_at_the_end() -> None:
    with private_file("a = b\n") as file:
        assert file.read_text() == "a = b\n"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert not file.parent.exists()
