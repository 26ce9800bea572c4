"""Paths, filters and input templates of pipes as documented by AWS."""

from __future__ import annotations

import base64
import json
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto.events.models import EventPattern

from stream_app.errors import ConfigError
from stream_app.local.pipes.patterns import (
    MISSING,
    compile_filters,
    compile_path,
    compile_template,
    compile_value,
    parse_body,
    referenced_part,
    value_at,
)

NAMES = st.text(alphabet="abc-_/9", min_size=1, max_size=4)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False, width=32)
)


def original(raw: Any) -> bytes:
    return str(raw["body"]).encode()


def shown(template: str | None, body: str, **reserved: str) -> bytes:
    raw = {"messageId": "m-1", "body": body}
    constants = {
        f"aws.pipes.{name.replace('_', '-')}": (lambda text=text: text) for name, text in reserved.items()
    }
    transform = compile_template(template, "body", original, constants)
    return transform(raw, {**raw, "body": parse_body(body)})


@given(st.lists(NAMES | st.integers(0, 3), min_size=1, max_size=6), VALUES)
def test_a_path_returns_the_value(steps: list[str | int], leaf: Any) -> None:
    value = leaf
    for step in reversed(steps):
        value = {step: value} if isinstance(step, str) else [None] * step + [value]
    path = "$" + "".join(f".{step}" if isinstance(step, str) else f"[{step}]" for step in steps)
    assert value_at(value, compile_path(path)) == leaf
    assert value_at(value, compile_path(f"{path}.gone")) is MISSING


@given(st.lists(st.integers()))
def test_a_wildcard_returns_all_values(numbers: list[int]) -> None:
    assert value_at({"a": [{"b": n} for n in numbers]}, compile_path("$.a[*].b")) == numbers
    assert value_at({"a": {str(k): n for k, n in enumerate(numbers)}}, compile_path("$.a.*")) == numbers


@pytest.mark.parametrize("path", ["body", "$..body", "$.a[?(@.b)]", "$.a[-1]", "$.a[0:2]", "$['a']"])
def test_unsupported_path_syntax_is_rejected(path: str) -> None:
    with pytest.raises(ConfigError, match="unsupported JSON path"):
        compile_path(path)


def test_a_target_parameter_is_a_path_or_a_literal() -> None:
    seen = {"body": {"resources": ["d-1"]}}
    assert compile_value("$.body.resources[0]")(seen) == "d-1"
    assert compile_value("fixed")(seen) == "fixed"


@given(st.text())
def test_a_body_template_keeps_the_body(body: str) -> None:
    assert shown("<$.body>", body) == shown(" <$.body> ", body) == body.encode()


@given(st.dictionaries(NAMES, VALUES))
def test_a_body_template_keeps_every_byte_of_json(value: dict[str, Any]) -> None:
    body = json.dumps(value, indent=3)
    assert shown("<$.body>", body) == body.encode()


@given(VALUES, st.text())
def test_a_json_template_produces_json(value: Any, text: str) -> None:
    body = json.dumps({"x": value, "text": text})
    template = '{"x": <$.body.x>, "said": "it said <$.body.text>", "whole": <$.body>, "id": <$.messageId>}'
    assert json.loads(shown(template, body)) == {
        "x": value,
        "said": f"it said {text}",
        "whole": json.loads(body),
        "id": "m-1",
    }


def test_text_templates_and_reserved_variables() -> None:
    assert shown("Hello, <$.body.name>!", '{"name": "d"}') == b"Hello, d!"
    assert shown("just text", "{}") == b"just text"
    assert shown("<aws.pipes.pipe-name>: <$.body.n>", '{"n": 1.5}', pipe_name="p") == b"p: 1.5"
    assert json.loads(shown('{"e": <aws.pipes.event.json>}', '{"n": 1}'))["e"]["body"] == {"n": 1}
    assert json.loads(shown("<aws.pipes.event>", '{"n": 1}'))["body"] == '{"n": 1}'


def test_without_a_template_the_whole_record_is_sent() -> None:
    assert json.loads(shown(None, '{"a": 1}')) == {"messageId": "m-1", "body": '{"a": 1}'}


def test_a_path_without_a_match_is_replaced_with_nothing() -> None:
    assert shown('{"a": "<$.body.gone>"}', "{}") == b'{"a": ""}'


def test_an_unknown_variable_is_rejected() -> None:
    with pytest.raises(ConfigError, match=r"aws\.pipes\.nothing"):
        shown("<aws.pipes.nothing>", "{}")


def test_a_data_template_keeps_binary_payloads() -> None:
    transform = compile_template("<$.data>", "data", lambda raw: base64.b64decode(str(raw["data"])), {})
    raw = {"data": base64.b64encode(b"\xc3\x01\x00\xff").decode()}
    assert transform(raw, {"data": parse_body(b"\xc3\x01\x00\xff")}) == b"\xc3\x01\x00\xff"


@pytest.mark.parametrize(
    ("pattern", "body", "matches"),
    [
        ('{"body": {"source": ["a"]}}', '{"source": "a"}', True),
        ('{"body": {"source": ["a"]}}', '{"source": "b"}', False),
        ('{"body": {"source": ["a"]}}', "plain text", False),
        ('{"body": {"source": [{"prefix": "a."}]}}', '{"source": "a.b"}', True),
        ('{"body": {"n": [{"numeric": [">", 1]}]}}', '{"n": 2}', True),
        ('{"body": ["plain text"]}', "plain text", True),
        ('{"body": ["plain text"]}', '{"source": "a"}', False),
        ('{"messageId": ["m-1"]}', "anything", True),
    ],
)
def test_filters_match_as_documented(pattern: str, body: str, matches: bool) -> None:
    assert compile_filters([pattern])({"messageId": "m-1", "body": parse_body(body)}) is matches


CONDITIONS = st.lists(
    st.sampled_from(
        [1, "x", None, {"exists": True}, {"exists": False}, {"prefix": "x"}, {"anything-but": 1}]
    ),
    min_size=1,
    max_size=2,
)
KEYS = st.sampled_from("abc")
PATTERNS = st.recursive(
    CONDITIONS, lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=2), max_leaves=4
)
TREES: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([1, 2, "x", "xy", None, []]),
    lambda inner: st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(KEYS, PATTERNS, min_size=1), st.dictionaries(KEYS, TREES))
def test_a_pattern_matches_the_referenced_part_like_the_whole_record(
    pattern: dict[str, Any], record: dict[str, Any]
) -> None:
    loaded = EventPattern.load(json.dumps(pattern))
    assert loaded.matches_event(cast("Any", referenced_part(record, pattern))) == loaded.matches_event(
        cast("Any", record)
    )


def test_any_filter_is_sufficient_and_none_matches_everything() -> None:
    record = {"body": {"a": 1}}
    assert compile_filters(['{"body": {"a": [2]}}', '{"body": {"a": [1]}}'])(record)
    assert compile_filters([])(record)


def test_an_invalid_filter_is_rejected() -> None:
    with pytest.raises(ConfigError, match="invalid event pattern"):
        compile_filters(['{"body": "not a list"}'])
