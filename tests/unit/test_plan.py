"""Plan files: complete, ordered, and refused when modified."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.errors import ConfigError
from stream_app.recovery.redrive.plan.file import (
    Item,
    LeftOut,
    Place,
    Plan,
    Sample,
    parse,
    read,
    to_text,
    with_digests,
)
from stream_app.recovery.redrive.select import Selection, digest, parse_selection
from stream_app.recovery.redrive.targets.auth import Auth, parse_auth
from stream_app.recovery.redrive.targets.target import Destination, destination, token
from stream_app.recovery.repair.file import parse_repair

NOW = datetime(2026, 1, 31, 3, tzinfo=UTC)
KEYS = st.text(min_size=1, max_size=20)
ITEMS = st.builds(
    Item,
    key=KEYS,
    etag=st.text("0123456789abcdef", min_size=4, max_size=4),
    root=st.just("") | KEYS,
    attempt=st.integers(1, 3),
    device=KEYS,
    event=st.none() | st.just("reading"),
    id=st.none() | KEYS,
    expected=st.sampled_from(["stored", "RULE_BROKEN"]),
    place=st.none() | st.just(Place("shardId-1", "42", 0, 1)),
)
OTHERS = st.builds(LeftOut, KEYS, st.just("e"), st.just("it cannot be repaired"), st.text(max_size=9))


def plan(**values: Any) -> Plan:
    known: dict[str, Any] = {
        "made_at": NOW,
        "by": "ann",
        "consumer": "air",
        "stream": "devices",
        "bucket": "b",
        "selection": Selection(codes=("RULE_BROKEN",), until=NOW),
        "destination": Destination("http", "https://example.com/x", Auth("Authorization", "env", "TOKEN")),
        "repair": parse_repair({"steps": [{"do": "set", "field": "value", "value": None}]}),
        "newer": "apply",
        "max_redrives": 3,
        "count": 2,
        "sent": 1,
        "replayed": 0,
        "left_out": {},
        "codes": {"RULE_BROKEN": 2},
        "expected": {"stored": 1},
        "devices": 1,
        "oldest": NOW - timedelta(hours=2),
        "newest": NOW,
        "age_s": 7200,
        "overtaken_count": 0,
        "overtaken": (),
        "sample": (Sample(key="k", code="RULE_BROKEN", reason="r", expected="stored", before={"value": 1}),),
        "selection_digest": "",
        "items": (),
        "others": (),
    }
    return with_digests(Plan(**{**known, **values}))


@given(st.lists(ITEMS, max_size=4), st.lists(OTHERS, max_size=3))
def test_a_written_plan_is_read_back(items: list[Item], others: list[LeftOut]) -> None:
    made = plan(items=tuple(items), others=tuple(others))
    text = to_text(made)
    assert parse(text) == made
    document = json.loads(text)
    assert list(document)[-2:] == ["items", "others"]
    assert document["count"] == 2


@given(st.lists(ITEMS, min_size=1, max_size=4), st.data())
def test_a_modified_plan_is_refused(items: list[Item], data: st.DataObject) -> None:
    document = json.loads(to_text(plan(items=tuple(items))))
    changes: dict[str, Any] = {
        "newer": "skip",
        "max_redrives": 99,
        "destination": {"kind": "http", "name": "https://elsewhere.com/"},
        "repair": None,
        "stream": "other",
        "items": [*document["items"], document["items"][0]],
        "selection_digest": "0" * 64,
        "others": [{"key": "k", "etag": "e", "why": "w"}],
    }
    name = data.draw(st.sampled_from(sorted(changes)))
    with pytest.raises(ConfigError, match="was changed after it was created"):
        parse(json.dumps({**document, name: changes[name]}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"kind": "stream-app.redrive-plan"}',
        b"\xff",
        to_text(plan()).replace("redrive-plan", "x"),
    ],
)
def test_an_invalid_plan_is_refused(text: str | bytes, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a plan"):
        parse(text)
    with pytest.raises(ConfigError, match="cannot read"):
        read(tmp_path / "none.json")


def test_the_id_depends_on_the_records_and_not_on_the_time_of_planning() -> None:
    assert plan(made_at=NOW + timedelta(1), by="bob", age_s=9).id == plan().id
    assert plan(newer="skip").id != plan().id


@given(st.lists(st.tuples(KEYS, KEYS), max_size=5, unique=True))
def test_a_digest_ignores_the_order_but_covers_every_pair(pairs: list[tuple[str, str]]) -> None:
    assert digest(pairs) == digest(pairs[::-1])
    assert digest([*pairs, ("another", "one")]) != digest(pairs)


def test_an_idempotency_key_is_a_function_of_record_and_attempt() -> None:
    one = Item(key="k", attempt=1, device="d", expected="stored")
    again = msgspec.structs.replace(one, attempt=2)
    line = msgspec.structs.replace(one, key="later", root="k")
    assert one.token == line.token == token(one.lineage)
    assert len({one.token, again.token}) == 2


def test_a_selection_is_parsed() -> None:
    found = parse_selection(
        ["code=rule_broken,event=air", "reason=a, b=c,since=24h", "code=TOO_LARGE,limit=5"], NOW
    )
    assert found == Selection(
        since=NOW - timedelta(days=1),
        codes=("RULE_BROKEN", "TOO_LARGE"),
        event="air",
        reason="a, b=c",
        limit=5,
    )
    assert found.query("air").statuses == {"open"}
    assert found.query("air", any_status=True).statuses == frozenset()
    assert parse_selection(["status=redriven,status=open,until=2026-01-01"], NOW) == Selection(
        statuses=("open", "redriven"), until=datetime(2026, 1, 1, tzinfo=UTC)
    )


@pytest.mark.parametrize(
    "texts",
    [
        ["x"],
        [""],
        ["size=3"],
        ["limit=0"],
        ["limit=x"],
        ["since=yesterday"],
        ["status=lost"],
        ["event=a", "event=b"],
        ["key=k,code=A"],
    ],
)
def test_an_invalid_selection_is_refused(texts: list[str]) -> None:
    with pytest.raises(ConfigError):
        parse_selection(texts, NOW)


def test_all_problems_of_a_selection_are_reported() -> None:
    with pytest.raises(ConfigError) as raised:
        parse_selection(["limit=0,since=x", "nonsense"], NOW)
    assert len(raised.value.problems) == 3


def test_targets_are_parsed() -> None:
    names: dict[str, Any] = {"bus": "air-bus", "stream": "devices"}
    assert destination("bus", **names) == Destination("bus", "air-bus")
    assert destination("stream", **names) == Destination("stream", "devices")
    auth = parse_auth("X-Api-Key=secret:prod/api#key")
    assert auth == Auth("X-Api-Key", "secret", "prod/api", "key")
    url = "https://example.com:8443/in?x=1"
    assert destination(url, **names, auth=auth) == Destination("http", url, auth)
    local = "http://127.0.0.1:8080/"
    assert destination(local, **names, auth=auth) == Destination("http", local, auth)


@pytest.mark.parametrize(
    ("to", "auth"),
    [
        ("ftp://example.com/", None),
        ("https://", None),
        ("https://ann:hunter2@example.com/", None),
        ("https://example.com:port/", None),
        ("https://example.com/a b", None),
        ("https://exämple.com/", None),
        ("http://example.com/", Auth("A", "env", "B")),
        ("bus", Auth("A", "env", "B")),
        ("nowhere", None),
    ],
)
def test_an_invalid_target_is_refused(to: str, auth: Auth | None) -> None:
    with pytest.raises(ConfigError) as raised:
        destination(to, bus="b", stream="s", auth=auth)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "text", ["Authorization=Bearer abc", "Authorization: x", "=env:X", "A=env:", "A=env:B#f", "A=file:/x"]
)
def test_a_literal_secret_is_refused_and_not_printed(text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_auth(text)
    assert "abc" not in str(raised.value)
