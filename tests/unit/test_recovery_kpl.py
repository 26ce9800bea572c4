"""Aggregates of the Kinesis Producer Library, against another implementation of the format."""

from __future__ import annotations

import hashlib

import pytest
from aws_kinesis_agg.aggregator import RecordAggregator
from hypothesis import given
from hypothesis import strategies as st

from stream_app.recovery.stream.kpl import MAGIC, UserRecord, aggregate, delivered, unpack

KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
HASHES = st.none() | st.integers(0, 2**128 - 1).map(str)
USERS = st.lists(st.tuples(KEYS, st.binary(max_size=200), HASHES), min_size=1, max_size=20)


def packed_by_other(users: list[tuple[str, bytes, str | None]]) -> bytes:
    made = RecordAggregator()
    for key, data, explicit in users:
        assert made.add_user_record(key, data, explicit) is None
    contents: tuple[str, str, bytes] = made.clear_and_get().get_contents()
    return contents[2]


def sealed(message: bytes) -> bytes:
    return MAGIC + message + hashlib.md5(message).digest()


@given(USERS)
def test_aggregated_records_are_deaggregated(users: list[tuple[str, bytes, str | None]]) -> None:
    unpacked = unpack(packed_by_other(users))
    assert unpacked is not None
    assert [record.data for record in unpacked] == [data for _, data, _ in users]
    assert [record.partition_key for record in unpacked] == [key for key, _, _ in users]


def test_explicit_hash_keys_decide_the_shard() -> None:
    # The other implementation always writes one, that of the partition key; the format has it optional.
    with_hash = sealed(b"\x0a\x01a\x12\x0242\x1a\x06\x08\x00\x10\x00\x1a\x00")
    assert unpack(with_hash) == [UserRecord("a", b"", "42")]
    without = unpack(sealed(b"\x0a\x01a\x1a\x04\x08\x00\x1a\x00"))
    assert without == [UserRecord("a", b"")]
    assert without is not None
    assert without[0].hash_key == int(hashlib.md5(b"a").hexdigest(), 16)
    assert delivered([UserRecord("a", b"", "42")], 42, 42)
    assert not delivered([UserRecord("a", b"", "42"), UserRecord("a", b"", "43")], 42, 42)


@given(st.binary(max_size=300), st.sampled_from([b"", MAGIC, MAGIC[:3]]))
def test_other_bytes_are_not_an_aggregate(data: bytes, start: bytes) -> None:
    assert unpack(start + data) is None


@given(USERS, st.data())
def test_a_damaged_aggregate_is_a_plain_record(
    users: list[tuple[str, bytes, str | None]], data: st.DataObject
) -> None:
    whole = packed_by_other(users)
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    assert unpack(damaged) is None
    assert unpack(whole[: data.draw(st.integers(0, len(whole) - 1))]) is None


@given(st.binary(min_size=1, max_size=60))
def test_any_message_with_a_valid_digest_gives_records_or_none(message: bytes) -> None:
    found = unpack(sealed(message))
    assert found is None or all(isinstance(record, UserRecord) for record in found)


@pytest.mark.parametrize(
    ("message", "records"),
    [
        (b"\x0a\x01a\x1a\x05\x08\x00\x1a\x01x\x1a\x05\x08\x07\x1a\x01y", [UserRecord("a", b"x")]),  # no key 7
        (b"\x0a\x01a\x1a\x07\x08\x00\x10\x03\x1a\x01x", []),  # no explicit hash key 3
        (b"\x0a\x01a\x12\x01?\x1a\x07\x08\x00\x10\x00\x1a\x01x", []),  # "?" is no hash key
        (b"\x0a\x01a\x1a\x03\x1a\x01x", None),  # a required field is missing
        (b"\x0a\x01a\x1a\x05\x08\x00\x1a\x09x", None),  # a length beyond the end
        (b"\x0b", None),  # a group, which the format does not have
        (b"\x0a\x01a\x4d1234\x51123456781\x1a", None),
        (b"\x0a\x01a\x4d1234\x1a\x05\x08\x00\x1a\x01x", [UserRecord("a", b"x")]),  # an unknown field
        (b"\xff" * 11, None),  # a number without an end
    ],
)
def test_unusual_messages_are_read_as_kcl_reads_them(
    message: bytes, records: list[UserRecord] | None
) -> None:
    assert unpack(sealed(message)) == records


def packed(explicit: list[str], keys: str = "a", index: bytes = b"\x00") -> bytes:
    message = b"\x0a\x01" + keys.encode()
    for text in explicit:
        encoded = text.encode()
        size = bytes([len(encoded) & 0x7F | 0x80, len(encoded) >> 7])
        message += b"\x12" + size + encoded
    for at in range(len(explicit)):
        record = b"\x08" + index + b"\x10" + bytes([at]) + b"\x1a\x01x"
        message += b"\x1a" + bytes([len(record)]) + record
    return sealed(message)


# What Java's `new BigInteger(text)` gives, cut to the range of hash keys; None where it throws.
@pytest.mark.parametrize(
    ("text", "hash_key"),
    [
        ("42", 42), ("+42", 42), ("-0", 0), ("-1", -1), ("0042", 42), ("٤٢", 42), ("0" * 5_000 + "7", 7),
        (str(2**128 - 1), 2**128 - 1), (str(2**128), 2**128), ("9" * 4_301, 2**128), ("-" + "9" * 4_301, -1),
        ("undefined", None), ("", None), ("+", None), ("+-1", None), ("1 ", None), (" 1", None), ("1_0", None),
        ("0x1", None), ("²", None), ("1.0", None), ("\U0001d7d2", None), ("null", None),
    ],
)  # fmt: skip
def test_an_explicit_hash_key_is_read_as_java_reads_it(text: str, hash_key: int | None) -> None:
    found = aggregate(packed(["1", text, "2"]))
    assert found is not None
    assert len(found) == 3
    if hash_key is None:
        assert (len(found.records), found.unreadable) == (1, 2)
        assert found.why == "its explicit hash key is not a number"
    else:
        assert [record.hash_key for record in found.records] == [1, hash_key, 2]
        assert delivered(found.records, 0, 2**128 - 1) == (0 <= hash_key < 2**128)


@pytest.mark.parametrize(
    ("index", "read"),
    [
        (b"\x80\x80\x80\x80\x10", 2),  # 2**32: KCL casts it to int, and gets 0
        (b"\x80\x80\x80\x80\x08", 0),  # 2**31: a negative int
        (b"\x01", 0),
    ],
)
def test_an_index_is_cast_as_kcl_casts_it(index: bytes, read: int) -> None:
    found = aggregate(packed(["1", "2"], index=index))
    assert found is not None
    assert (len(found.records), len(found)) == (read, 2)
