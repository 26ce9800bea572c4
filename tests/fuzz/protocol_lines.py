"""Fuzzes the MultiLang protocol: both readers must agree, and `serve` must reject invalid lines."""

from __future__ import annotations

import io
import json
import random
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from stream_app.consumer.protocol.line_reader import LineReader, read_record_line
from stream_app.consumer.protocol.multilang import Checkpointer, Message, ProcessRecords, serve
from stream_app.errors import StreamAppError
from stream_app.model.record import Record
from tests.fuzz.mutations import mutated
from tests.fuzz.watch import bounded

_decode = msgspec.json.Decoder(Message).decode
_ACTIONS: tuple[dict[str, Any], ...] = (
    {
        "action": "initialize",
        "shardId": "shardId-000000000000",
        "sequenceNumber": "7",
        "subSequenceNumber": 1,
    },
    {"action": "leaseLost"},
    {"action": "shardEnded"},
    {"action": "shutdownRequested"},
    {"action": "shutdown", "reason": "TERMINATE"},
    {"action": "checkpoint", "sequenceNumber": "5", "subSequenceNumber": 0, "error": None},
    {"action": "processRecords", "records": [], "millisBehindLatest": 0},
)


def fuzz(seed: int, count: int) -> None:
    """Test `count` lines. Raises AssertionError, with the line, if a property does not hold."""
    rng = random.Random(seed)
    lines = [_records(rng) for _ in range(20)] + [_line(action) for action in _ACTIONS]
    _compiled_reader_agrees(lines[0])  # compile before timing
    for _ in range(count):
        line = mutated(rng.choice(lines), rng, lines)
        with bounded(line):
            _compiled_reader_agrees(line.replace(b"\n", b"") + b"\n")
            _serve_fails_clearly(line)


def _records(rng: random.Random) -> bytes:
    """Return a processRecords line as written by the daemon."""
    items = [
        {
            "data": b64encode(rng.randbytes(rng.choice((0, 1, 30, 300)))).decode(),
            "partitionKey": rng.choice(("station-1", "Zürich", "x" * 256, "日本")),
            "sequenceNumber": str(rng.randrange(10 ** rng.choice((1, 18, 56)))),
            "approximateArrivalTimestamp": rng.randrange(2**41),
            "subSequenceNumber": rng.choice((0, 0, 5)),
            "action": "record",
        }
        for _ in range(rng.choice((1, 2, 5)))
    ]
    return _line({"action": "processRecords", "records": items, "millisBehindLatest": rng.choice((0, 9_000))})


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _compiled_reader_agrees(line: bytes) -> None:
    view = LineReader(io.BytesIO(line)).read()
    assert view is not None
    found = read_record_line(view)
    if found is None:
        return
    read = _decode(line)
    assert isinstance(read, ProcessRecords), line
    assert list(found.records) == read.records, line
    assert found.behind_ms == read.millis_behind_latest, line


def _serve_fails_clearly(lines: bytes) -> None:
    with suppress(StreamAppError):  # the documented error for an invalid line
        serve(_Handler(), io.BytesIO(lines), io.BytesIO())


class _Handler:
    """A handler that accesses the data of each record, as a consumer does."""

    def initialize(self, shard: str, sequence: str | None, sub: int | None) -> None:
        pass

    def process(self, records: Sequence[Record], behind_ms: int | None, checkpointer: Checkpointer) -> None:
        for record in records:
            assert isinstance(record.data, bytes)

    def lease_lost(self) -> None:
        pass

    def shard_ended(self, checkpointer: Checkpointer) -> None:
        checkpointer.checkpoint(None, None)

    def shutdown_requested(self, checkpointer: Checkpointer) -> None:
        pass
