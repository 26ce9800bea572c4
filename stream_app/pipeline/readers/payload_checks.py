"""Checks that a JSON text must pass before it is decoded: valid UTF-8, and a limit on nesting depth.

The JSON decoder does not validate the names and values that it skips, and its own depth limit depends on how much of
Python's stack is in use. The result for a record must depend on neither.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stream_app.model.records import Payloads
from stream_app.pipeline.readers import payload_kernel as kernel

MAX_DEPTH = 64
"""Levels of nested arrays and objects that a record may have, including its envelope."""
TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"
JSON_STARTS = frozenset(b"{ \t\r\n")
"""The first bytes of payloads that are read as JSON."""
_ASCII = 0x7F


class PayloadScan(NamedTuple):
    """The number of line breaks in all payloads, and the rows whose JSON text `problem` rejects."""

    line_breaks: int
    rejected: list[int]


def scan_payloads(payloads: Payloads) -> PayloadScan:
    """Check all payloads in one pass, then each suspect payload individually."""
    opening = np.empty(len(payloads), dtype=np.int64)
    line_breaks, all_bits = kernel.scan(payloads.read_only(), payloads.begins, opening)
    suspect = opening > MAX_DEPTH
    if all_bits > _ASCII and not _is_utf8(payloads):
        suspect[:] = True
    rows: list[int] = np.flatnonzero(suspect).tolist()
    return PayloadScan(line_breaks, [row for row in rows if _is_rejected(payloads, row)])


def problem(data: bytes) -> str | None:
    """Return why a JSON text is rejected, or None. The caller checks its size."""
    if not data.isascii():
        try:
            str(data, "utf-8")
        except UnicodeDecodeError as error:
            return f"not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}"
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH and _depth(data) > MAX_DEPTH:
        return TOO_DEEP
    return None


def _is_rejected(payloads: Payloads, row: int) -> bool:
    begin = payloads.begins[row]
    return int(payloads.data[begin]) in JSON_STARTS and problem(payloads.payload(row)) is not None


def _is_utf8(payloads: Payloads) -> bool:
    """Whether all payloads are valid UTF-8. The line breaks between them end any incomplete byte sequence."""
    try:
        str(payloads.data[payloads.begins[0] : payloads.begins[-1]].data, "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _depth(data: bytes) -> int:
    return int(kernel.depth(np.frombuffer(data, dtype=np.uint8)))
