"""The compiled reader of daemon lines accepts only lines that a JSON library reads identically."""

from __future__ import annotations

import io
import json
import random
from base64 import b64encode
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.consumer.protocol.line_reader import LineReader, RecordLine, read_record_line
from stream_app.consumer.protocol.multilang import Message, ProcessRecords
from stream_app.model.record import Record

_decode = msgspec.json.Decoder(Message).decode
NUMBERS = st.integers(0, 10**18 - 1)
RECORDS = st.lists(
    st.builds(
        Record,
        data=st.binary(max_size=400),
        partition_key=st.text(min_size=1, max_size=256).map(lambda text: json.loads(json.dumps(text))),
        sequence_number=st.integers(0, 10**56).map(str),
        approximate_arrival_timestamp=NUMBERS,
        sub_sequence_number=NUMBERS,
    ),
    min_size=1,
    max_size=12,
)


def line(records: list[Record], behind_ms: int | None = 7) -> bytes:
    """Encode records like Jackson: the action of a record comes last, and escapes are minimal."""
    items = [
        {
            "data": b64encode(record.data).decode(),
            "partitionKey": record.partition_key,
            "sequenceNumber": record.sequence_number,
            "approximateArrivalTimestamp": record.approximate_arrival_timestamp,
            "subSequenceNumber": record.sub_sequence_number,
            "action": "record",
        }
        for record in records
    ]
    return compact({"action": "processRecords", "records": items, "millisBehindLatest": behind_ms})


def compact(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode(errors="replace") + b"\n"


def take(sent: bytes) -> RecordLine | None:
    found = LineReader(io.BytesIO(sent)).read()
    assert found is not None
    assert bytes(found) == sent
    return read_record_line(found)


def plain(text: str) -> bool:
    return not set(text) & set('"\\') and all(ord(character) >= 32 for character in text)


@given(RECORDS, NUMBERS)
def test_records_are_read_as_sent(records: list[Record], behind_ms: int) -> None:
    sent = line(records, behind_ms)
    read = _decode(sent)
    assert isinstance(read, ProcessRecords)
    found = take(sent)
    if found is None:
        assert not all(plain(record.partition_key) for record in records)
    else:
        assert list(found.records) == read.records
        assert found.behind_ms == behind_ms


@given(RECORDS, st.randoms(use_true_random=False))
def test_damaged_lines_are_accepted_only_if_a_json_library_agrees(
    records: list[Record], rng: random.Random
) -> None:
    whole = line(records)
    for _ in range(30):
        at = rng.randrange(len(whole) - 1)
        change = rng.choice([bytes([rng.randrange(256)]), b"", b'"', b"}", b"{", b",", b"=", b"0", b" "])
        sent = (whole[:at] + change.replace(b"\n", b"") + whole[at + rng.randrange(2) : -1]) + b"\n"
        found = take(sent)
        if found is not None:
            read = _decode(sent)
            assert isinstance(read, ProcessRecords)
            assert list(found.records) == read.records
            assert found.behind_ms == read.millis_behind_latest


def test_members_may_have_any_order() -> None:
    record = Record(b"data", "kéy", "4960", 1_700_000_000_000, 3)
    message = json.loads(line([record]))
    members = list(message["records"][0].items())
    for seed in range(50):
        random.Random(seed).shuffle(members)
        found = take(compact({**message, "records": [dict(members)] * 3}))
        assert found is not None
        assert list(found.records) == [record] * 3


@pytest.mark.parametrize(
    "sent",
    [
        line([]),
        line([Record(b"x", "k", "1", 1)], None),
        line([Record(b"x", "k", "1", 1)]).replace(b'"k"', b'"\\u006b"'),
        line([Record(b"x", "k", "1", 1)]).replace(b'"k"', b'"\xff"'),
        line([Record(b"x", "k", "1", 1), Record(b"x", "k", "1", 1)])
        .replace(b'"k"', b'"\xc3"', 1)
        .replace(b'"k"', b'"\xa9"'),
        line([Record(b"x", "k", "1", 1)]).replace(b":", b": "),
        line([Record(b"x", "k", "1", 1)]).replace(b'"subSequenceNumber":0,', b""),
        line([Record(b"x", "k", "1", 1)]).replace(b'"subSequenceNumber":0', b'"subSequenceNumber":null'),
        line([Record(b"x", "k", "1", 1)]).replace(b'"k"', b'"k","partitionKey":"l"'),
        line([Record(b"x", "k", "1", 1)]).rstrip(),
        b'{"action":"shardEnded"}\n',
        b"\n",
    ],
)
def test_other_lines_are_not_accepted(sent: bytes) -> None:
    assert take(sent) is None


class _Trickle(io.RawIOBase):
    """Returns a random number of bytes per read."""

    def __init__(self, data: bytes, rng: random.Random) -> None:
        self._left, self._rng = io.BytesIO(data), rng

    def readinto(self, buffer: Any, /) -> int:
        return self._left.readinto(memoryview(buffer)[: self._rng.choice([1, 10, 1_000, 100_000])])


@given(
    st.lists(st.one_of(st.binary(max_size=20), st.integers(0, 300_000).map(bytes)), max_size=8),
    st.binary(max_size=5),
    st.randoms(use_true_random=False),
)
def test_lines_are_complete_for_any_read_sizes(lines: list[bytes], last: bytes, rng: random.Random) -> None:
    wanted = [each.replace(b"\n", b"") + b"\n" for each in lines]
    rest = last.replace(b"\n", b"")
    reader = LineReader(_Trickle(b"".join(wanted) + rest, rng))
    found = []
    while (each := reader.read()) is not None:
        found.append(bytes(each))
    assert found == wanted + ([rest] if rest else [])


def test_unused_buffer_memory_is_released() -> None:
    small = b"x" * 99 + b"\n"
    reader = LineReader(_Trickle(b"y" * 3_000_000 + b"\n" + small * 3, random.Random(1)))
    line = reader.read()
    assert line is not None
    assert reader.capacity > len(line) > 3_000_000
    while reader.read() is not None:
        pass
    assert reader.capacity < 100_000
