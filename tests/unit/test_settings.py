"""Settings: one file for the daemon and the application, and every problem at once."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app import app
from stream_app.errors import ConfigError
from stream_app.settings import INSPECTED_ROWS, Settings, parse_properties, read_properties

NAMED = {"applicationName": "app", "streamName": "devices"}


def problems(properties: dict[str, str], environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Settings.load(environ or {}, properties)
    assert all(problem.hint for problem in caught.value.problems)
    return [problem.what for problem in caught.value.problems]


def test_the_daemons_property_names_are_read() -> None:
    settings = Settings.load({}, {**NAMED, "regionName": "eu-west-1", "maxRecords": "5"})
    assert (settings.application, settings.stream, settings.region) == ("app", "devices", "eu-west-1")


def test_environment_variables_override_application_properties_which_override_the_daemons() -> None:
    properties = {**NAMED, "app.stream": "mine", "app.segment_seconds": "5"}
    assert Settings.load({}, properties).stream == "mine"
    environ = {"STREAM_APP_STREAM": "theirs", "STREAM_APP_SEGMENT_SECONDS": "7", "STREAM_APP_BUCKET": ""}
    settings = Settings.load(environ, properties)
    assert (settings.stream, settings.segment_seconds, settings.bucket) == ("theirs", 7, "")


def test_every_field_can_be_set() -> None:
    given_ = {
        "missing_state": "fresh",
        "log_level": "DEBUG",
        "shard_host": "false",
        "unsigned_state": "accept",
    }
    values = {
        item.name: "7" if item.type == "int" else given_.get(item.name, item.name)
        for item in fields(Settings)
        if item.name != "state_key"
    }
    settings = Settings.load({}, {f"app.{name}": value for name, value in values.items()})
    assert {name: str(getattr(settings, name)) for name in values} == values


def test_a_key_is_read_only_from_the_environment_and_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load({}, {**NAMED, "app.state_key": "hidden"})
    (problem,) = caught.value.problems
    assert problem.what == "app.state_key is set as a property"
    assert "STREAM_APP_STATE_KEY" in problem.hint
    assert "hidden" not in str(caught.value)
    settings = Settings.load({"STREAM_APP_STATE_KEY": "hidden"}, NAMED)
    assert settings.state_key == "hidden"
    assert "hidden" not in repr(settings)


def test_all_problems_are_reported_together() -> None:
    wrong = {
        "app.segment_seconds": "0",
        "app.segment_records": "many",
        "app.segment_bytes": "0",
        "app.checkpoint_second": "5",
        "app.clock_margin_ms": "-1",
        "app.retry_attempts": "0",
        "app.retry_base_ms": "-5",
        "app.missing_state": "ignore",
        "app.log_level": "LOUD",
        "app.max_record_bytes": "1.5",
    }
    found = problems(wrong, {"STREAM_APP_SEEN_IDS": "-3"})
    for words in (
        "applicationName is not set",
        "streamName is not set",
        "app.segment_seconds = 0 is below 1",
        "app.segment_records = 'many' is not a whole number",
        "app.segment_bytes = 0 is below 1",
        "unknown property app.checkpoint_second",
        "app.clock_margin_ms = -1 is below 0",
        "app.retry_attempts = 0 is below 1",
        "app.retry_base_ms = -5 is below 0",
        "app.missing_state = 'ignore'",
        "app.log_level = 'LOUD'",
        "app.max_record_bytes = '1.5' is not a whole number",
        "app.seen_ids = -3 is below 1",
    ):
        assert words in found
    assert len(found) == 13


def test_an_unknown_property_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load({}, {**NAMED, "app.segments": "5"})
    (problem,) = caught.value.problems
    assert "app.segment_seconds" in problem.hint
    assert str(caught.value) == f"{problem.what} ({problem.hint})"


def test_other_daemon_properties_are_ignored() -> None:
    assert Settings.load({}, {**NAMED, "anything": "5", "": "x"}) == Settings("app", "devices")


# ---- Properties, as java.util.Properties reads them


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", {}),
        ("a = b", {"a": "b"}),
        ("a=b\nc:d\ne f", {"a": "b", "c": "d", "e": "f"}),
        ("  a  =  b  ", {"a": "b"}),
        ("a\na.b =", {"a": "", "a.b": ""}),
        ("# a = b\n! c = d\n   # e = f\n\n", {}),
        ("a = b # no comment", {"a": "b # no comment"}),
        ("a = b = c:d", {"a": "b = c:d"}),
        ("url = http://x:80/y", {"url": "http://x:80/y"}),
        ("a = 1\na = 2", {"a": "2"}),
        ("a = 1,\\\n    2,\\\n\t3\nb = 4", {"a": "1,2,3", "b": "4"}),
        ("# a comment does not go on \\\na = b", {"a": "b"}),
        ("a = b\\\n# this does", {"a": "b# this does"}),
        ("a = b\\\\\nc = d", {"a": "b\\", "c": "d"}),
        ("a = b\\\\\\\nc = d", {"a": "b\\c = d"}),
        ("a = b\r\nc = d\re = f", {"a": "b", "c": "d", "e": "f"}),
        ("a = b\\\r\n  c", {"a": "bc"}),
        ("a\\ b = c\\=d\\:e", {"a b": "c=d:e"}),
        ("a\\=b : c", {"a=b": "c"}),
        ("a = \\u00e9\\tx\\q", {"a": "é\txq"}),
        ("a = b\\", {"a": "b"}),
        ("a = one\u2028line", {"a": "one\u2028line"}),
        ("= b", {}),
    ],
)
def test_properties(text: str, pairs: dict[str, str]) -> None:
    assert parse_properties(text) == pairs


_plain = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\\=:#!"), min_size=1)


@given(
    st.dictionaries(_plain, _plain),
    st.sampled_from([" = ", "=", ":", " : ", "\t=  "]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_plain_pairs_are_read_unchanged(pairs: dict[str, str], between: str, end: str) -> None:
    assert parse_properties(end.join(f"{name}{between}{value}" for name, value in pairs.items())) == pairs


def test_a_file_is_read_or_named_in_the_error(tmp_path: Path) -> None:
    file = tmp_path / "x.properties"
    with pytest.raises(ConfigError, match=r"cannot read .*x\.properties"):
        read_properties(file)
    file.write_bytes(b"a = \xff")
    with pytest.raises(ConfigError, match=r"cannot read .*x\.properties"):
        read_properties(file)
    file.write_text("a = b", encoding="utf-8")
    assert read_properties(file) == {"a": "b"}
    file.write_text("path = C:\\users")
    with pytest.raises(ConfigError, match=r"x\.properties"):
        read_properties(file)


@pytest.mark.parametrize(
    ("timeout", "batch", "limit"), [(0, 0, 0.0), (600, 0, 24.0), (120, 0, 4.8), (0, 99, 99.0), (120, 3, 3.0)]
)
def test_the_batch_time_limit_is_derived_from_the_daemons(timeout: int, batch: int, limit: float) -> None:
    known = Settings("app", "devices", timeout_seconds=timeout, batch_seconds=batch)
    assert known.batch_limit == limit
    assert known.batch_problems() == []
    assert 2 * limit * (2 + math.log2(INSPECTED_ROWS)) < (timeout or math.inf)


def test_a_time_limit_too_short_to_find_the_record_is_refused() -> None:
    properties = {"applicationName": "app", "streamName": "devices", "timeoutInSeconds": "120"}
    known = Settings.load({}, {**properties, "app.batch_seconds": "5"})
    (problem,) = known.batch_problems()
    assert problem.what == "app.batch_seconds = 5 is too long for timeoutInSeconds = 120"
    assert problem.hint == "give at most 4, or set timeoutInSeconds to at least 121"
    assert Settings("app", "devices", timeout_seconds=121, batch_seconds=5).batch_problems() == []
    (problem,) = Settings("app", "devices", timeout_seconds=20, batch_seconds=1).batch_problems()
    assert problem.hint == "leave it out, or set timeoutInSeconds to at least 25"
    with pytest.raises(ConfigError, match="too long for timeoutInSeconds"):
        app.consumer(known, app.clients({}))
