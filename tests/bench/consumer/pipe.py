"""MultiLang protocol loop for other stream processors: reads, decodes and answers the daemon's lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import msgspec

from stream_app.consumer.protocol.multilang import Message, ProcessRecords, ShardEnded
from stream_app.model.record import Record
from tests.bench.consumer import rows
from tests.bench.consumer.rows import Row

_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


class Pipe:
    """Returns the records of one line at a time; requesting the next line answers the current one."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)  # keep output printed by libraries out of the protocol stream
        self._action: str | None = None

    def records(self) -> Sequence[Record] | None:
        """Return the records of the next line (empty for other actions), or None at the end of input."""
        if self._action is not None:
            self._write(b'{"action":"status","responseFor":"%s"}' % self._action.encode())
        line = sys.stdin.buffer.readline()
        if not line:
            return None
        message = _decoder.decode(line)
        self._action = str(message.__struct_config__.tag)
        if isinstance(message, ShardEnded):
            self._write(b'{"action":"checkpoint","sequenceNumber":null,"subSequenceNumber":null}')
            sys.stdin.buffer.readline()
        return message.records if isinstance(message, ProcessRecords) else []

    def _write(self, answer: bytes) -> None:
        self._out.write(b"\n" + answer + b"\n")
        self._out.flush()


def prepared(record: Record) -> tuple[str, tuple[Record, Row | rows.RejectedError]]:
    """Return a record as (device, (record, row or error)); the device is empty for unreadable records."""
    try:
        row = rows.read(record.data)
    except rows.RejectedError as error:
        return "", (record, error)
    return row["station"], (record, row)


class Files:
    """Output files for stored rows and failures."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._stored: TextIO = (folder / "stored.jsonl").open("w")
        self._failed: TextIO = (folder / "failed.jsonl").open("w")

    def add(self, record: Record, done: Row | rows.RejectedError | None) -> None:
        """Write the result of one record; None is a duplicate and is not written."""
        position = {"sequence": record.sequence_number, "sub": record.sub_sequence_number}
        if isinstance(done, rows.RejectedError):
            self._failed.write(rows.failed(position, record.partition_key, done))
        elif done is not None:
            arrived = record.approximate_arrival_timestamp
            self._stored.write(rows.stored(position, record.partition_key, arrived, done))

    def flush(self) -> None:
        """Flush both files; call before a line is answered."""
        self._stored.flush()
        self._failed.flush()


def folder() -> Path:
    """Return the output folder of this child."""
    return Path(os.environ["BENCH_FOLDER"])
