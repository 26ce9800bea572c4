"""Checks that a JSON text must pass before it is decoded: valid UTF-8, and nested no deeper than a fixed limit.

The JSON decoder does not look into names and values that it skips, and how deep it can go depends on how much of
Python's stack is in use. What a record becomes must depend on neither.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stream_app.model.records import Payloads
from stream_app.pipeline.readers import payload_kernel as kernel

MAX_DEPTH = 64
"""Levels of nested arrays and objects that a record may have, its envelope included."""
TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"
JSON_STARTS = frozenset(b"{ \t\r\n")
"""First bytes of the payloads that are read as JSON."""
_ASCII = 0x7F


class PayloadScan(NamedTuple):
    """What a pass over all payloads found: line breaks, and the rows of JSON texts that `problem` refuses."""

    line_breaks: int
    refused: list[int]


def scan_payloads(payloads: Payloads) -> PayloadScan:
    """Check all payloads in one pass; a payload that may have a problem is looked at by itself."""
    opening = np.empty(len(payloads), dtype=np.int64)
    line_breaks, either = kernel.scan(payloads.read_only(), payloads.begins, opening)
    looked_at = opening > MAX_DEPTH
    if either > _ASCII and not _is_utf8(payloads):
        looked_at[:] = True
    rows: list[int] = np.flatnonzero(looked_at).tolist()
    return PayloadScan(line_breaks, [row for row in rows if _refused(payloads, row)])


def problem(data: bytes) -> str | None:
    """Return why a JSON text is refused, None where nothing is wrong. Its size is for the caller to check."""
    if not data.isascii():
        try:
            str(data, "utf-8")
        except UnicodeDecodeError as error:
            return f"not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}"
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH and _depth(data) > MAX_DEPTH:
        return TOO_DEEP
    return None


def _refused(payloads: Payloads, row: int) -> bool:
    begin = payloads.begins[row]
    return int(payloads.data[begin]) in JSON_STARTS and problem(payloads.payload(row)) is not None


def _is_utf8(payloads: Payloads) -> bool:
    """Whether all payloads are. A line break between them ends every sequence of bytes."""
    try:
        str(payloads.data[payloads.begins[0] : payloads.begins[-1]].data, "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _depth(data: bytes) -> int:
    return int(kernel.depth(np.frombuffer(data, dtype=np.uint8)))
