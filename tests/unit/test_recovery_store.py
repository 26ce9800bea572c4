"""The failure store's names and objects: found by identity, and the payload comes back as it went in."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stream_app.model.record import Position
from stream_app.recovery.dead_letters import KIND, DeadLetter
from stream_app.recovery.store import failure, failure_key, folder, load, parse_key

SHARDS = st.integers(0, 10**12 - 1).map(lambda number: f"shardId-{number:012d}")
POSITIONS = st.builds(Position, SHARDS, st.integers(0, 10**56).map(str), st.integers(0, 10_000))
KEYS = st.text(max_size=256)
TIMES = st.integers(0, 4_000_000_000_000)


def dead_letter(position: Position, key: str = "Dongsi", arrived: int = 1_480_550_400_123) -> DeadLetter:
    return DeadLetter(
        kind=KIND,
        version=1,
        consumer="air",
        stream="devices",
        shard=position.shard,
        sequence=position.sequence,
        sub=position.sub,
        partition_key=key,
        arrived=arrived,
        event="air_quality",
        schema=None,
        stage="verify",
        code="RULE_BROKEN",
        reason="pm25 is not negative",
        segment=position.sequence,
    )


def test_a_failure_is_stored_under_consumer_hour_and_partition_key() -> None:
    key = failure_key("air", Position("shardId-000000000003", "4960", 2), "Dongsi/1 ~", 1_480_550_400_123)
    assert key == (
        "failures/air/2016/12/01/00/Dongsi%2F1%20%7E/20161201T000000.123Z-shardId-000000000003-4960-2.json"
    )


@given(POSITIONS, KEYS, TIMES)
@example(Position("shardId-1", "1", 0), "", 0)
@example(Position("shardId-1", "1", 0), ".", 0)
@example(Position("shardId-1", "1", 0), "..", 0)
@example(Position("shardId-1", "1", 0), "𐀀" * 256, 0)
def test_a_key_is_parsed_into_its_parts(position: Position, partition_key: str, arrived: int) -> None:
    key = failure_key("air-quality.1", position, partition_key, arrived)
    assert len(key.encode()) <= 1024
    assert not {"", ".", ".."} & set(key.split("/"))
    found = parse_key(key)
    assert found is not None
    assert (found.consumer, found.arrived, found.position) == ("air-quality.1", arrived, position)
    assert found.partition_key in (partition_key, None)
    assert found.partition_key is not None or len(partition_key.encode("utf-8", "surrogatepass")) > 120


@given(KEYS, KEYS)
@example("..", "%2E%2E")
@example("~", "")
@example("é" * 256, "é" * 255)
def test_different_partition_keys_have_different_folders(one: str, other: str) -> None:
    assert (folder(one) == folder(other)) == (one == other)


@given(st.text(min_size=100, max_size=256))
def test_a_truncated_folder_name_has_complete_escapes_only(partition_key: str) -> None:
    name = folder(partition_key)
    escapes = name.partition("~")[0].split("%")[1:]
    assert all(len(escape) >= 2 for escape in escapes)
    assert len(name) <= 400


@pytest.mark.parametrize(
    "key",
    [
        "failures/air/2016/12/01/00/Dongsi/notes.txt",
        "failures/air/Dongsi/20161201T000000.123Z-shardId-3-4960-2.json",
        "events/air/2016/12/01/00/Dongsi/20161201T000000.123Z-shardId-3-4960-2.json",
        "failures/air/2016/12/01/00/Dongsi/20161399T000000.123Z-shardId-3-4960-2.json",
    ],
)
def test_other_keys_are_not_failures(key: str) -> None:
    assert parse_key(key) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.binary(max_size=100) | JSON.map(lambda value: json.dumps(value, indent=1).encode()))
@example(b"")
@example(b"null")
@example(b'{"a":1,"a":2}')
@example(b'"\\ud800"')
@example(b"\xef\xbb\xbf{}")
@example(b"[" * 100_000)
@example(b"1e400")
def test_the_payload_round_trips_byte_for_byte(data: bytes) -> None:
    stored = failure(dead_letter(Position("shardId-1", "7")), data)
    body = msgspec.json.encode(stored)
    again = load(body)
    assert again.data == (data.strip(b" \t\r\n") if again.encoding == "json" else data)
    assert msgspec.json.encode(again) == body
    assert json.loads(body)["encoding"] == again.encoding


def test_json_is_stored_as_json_and_other_bytes_as_base64() -> None:
    position = Position("shardId-1", "7")
    for data, encoding, payload in (
        (b' {"pm25": 1.50} \n', "json", {"pm25": 1.5}),
        (b"\x00", "base64", "AA=="),
        (None, "none", None),
    ):
        plain = json.loads(msgspec.json.encode(failure(dead_letter(position), data)))
        assert (plain["encoding"], plain["payload"]) == (encoding, payload)
    assert load(msgspec.json.encode(failure(dead_letter(position), None))).data is None


def test_the_object_has_every_field_of_the_dead_letter() -> None:
    known = dead_letter(Position("shardId-1", "7", 3))
    plain = json.loads(msgspec.json.encode(failure(known, b"{}")))
    told = msgspec.to_builtins(known)
    assert plain["dead_letter"] == told
    for name in set(told) - {"kind", "version", "segment"}:
        assert plain[name] == told[name]
    assert (plain["arrived_at"], plain["attempts"]) == ("2016-12-01T00:00:00.123Z", 0)


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff", b'{"kind":"x"}'])
def test_an_invalid_failure_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="not a stored failure"):
        load(body)


def test_an_object_of_another_kind_is_refused() -> None:
    stored = msgspec.structs.replace(failure(dead_letter(Position("shardId-1", "7")), b"{}"), kind="other")
    with pytest.raises(ValueError, match="'other'"):
        load(msgspec.json.encode(stored))


def test_hours_are_utc() -> None:
    late = int(datetime(2020, 2, 29, 23, 59, 59, tzinfo=UTC).timestamp() * 1000)
    assert "/2020/02/29/23/" in failure_key("air", Position("s", "1"), "k", late)
