"""The compiled part of `line_reader`: parses a record line of the daemon directly into columns.

It supports the form in which KCL's daemon writes: compact JSON, members of a record in any order, no escapes,
base64 of the standard alphabet. It returns UNSUPPORTED for any other line, which a JSON library then decodes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.kernels.compiled import compiled

Bytes = NDArray[np.uint8]
Longs = NDArray[np.int64]
Begins = NDArray[np.int32]

# The start of a record line, and what follows its last record.
HEAD = np.frombuffer(b'{"action":"processRecords","records":[', np.uint8)
TAIL = np.frombuffer(b'],"millisBehindLatest":', np.uint8)
_MEMBERS = (
    b'"action":"record"',
    b'"data":"',
    b'"partitionKey":"',
    b'"sequenceNumber":"',
    b'"approximateArrivalTimestamp":',
    b'"subSequenceNumber":',
)
_ACTION, _DATA, _KEY, _SEQUENCE, _ARRIVED, _SUB = range(len(_MEMBERS))
_ALL = (1 << len(_MEMBERS)) - 1
MEMBERS = np.zeros((len(_MEMBERS), max(map(len, _MEMBERS))), np.uint8)
for _at, _name in enumerate(_MEMBERS):
    MEMBERS[_at, : len(_name)] = np.frombuffer(_name, np.uint8)
LENGTHS = np.array([len(name) for name in _MEMBERS])
# The minimal size of a record in a line.
SMALLEST = int(LENGTHS.sum())
# Characters are processed in blocks of this size, for vector instructions. Input and output buffers need as many
# bytes behind their content.
BLOCK = SLACK = 128
# Returned in place of a number of records: the line has another form.
UNSUPPORTED = -1
# Returned in place of milliseconds for null.
UNKNOWN = -1
_QUOTE, _BACKSLASH, _COMMA, _OPEN, _CLOSE, _PAD, _ZERO = (ord(character) for character in '"\\,{}=0')
_D, _P, _S, _U, _C = (ord(letter) for letter in "dpsuc")
_LINE_BREAK = 10
_INVALID = np.uint8(0xFF)


class LineBuffers(NamedTuple):
    """Output columns: concatenated texts, and the offset of each, with one more offset than records.

    Each payload is followed by a line break; keys and sequence numbers are not separated.
    """

    payloads: Bytes
    payload_begins: Longs
    keys: Bytes
    key_begins: Begins
    sequences: Bytes
    sequence_begins: Begins
    arrived: Longs
    subs: Longs


@compiled
def same(data: Bytes, at: int, text: Bytes, length: int) -> bool:
    """Whether the first `length` bytes of `text` are at offset `at`."""
    begin, different = np.uintp(at), np.uint8(0)
    for i in range(length):
        different |= data[begin + np.uintp(i)] ^ text[i]
    return bool(different == 0)


@compiled
def sextets(data: Bytes, at: int, bits: Bytes) -> np.uint8:
    """Decode a block of base64 characters to six bits each; return a value above 63 if one of them is invalid.

    Comparisons in place of a table, and blocks of constant size, allow the compiler to use vector instructions.
    """
    begin, worst = np.uintp(at), np.uint8(0)
    for i in range(BLOCK):
        c = data[begin + np.uintp(i)]
        upper, lower, digit = np.uint8(c - 65), np.uint8(c - 97), np.uint8(c - 48)
        six = _INVALID
        six = upper if upper < np.uint8(26) else six
        six = np.uint8(lower + np.uint8(26)) if lower < np.uint8(26) else six
        six = np.uint8(digit + np.uint8(52)) if digit < np.uint8(10) else six
        six = np.uint8(62) if c == np.uint8(43) else six
        six = np.uint8(63) if c == np.uint8(47) else six
        worst = np.uint8(worst | six)
        bits[i] = six
    return worst


@compiled
def octets(bits: Bytes, out: Bytes, to: int) -> None:
    """Combine every four sextets of a block into three bytes."""
    begin = np.uintp(to)
    for i in range(BLOCK // 4):
        a, b, c, d = bits[4 * i], bits[4 * i + 1], bits[4 * i + 2], bits[4 * i + 3]
        first = begin + np.uintp(3 * i)
        out[first] = np.uint8(np.uint8(a << np.uint8(2)) | np.uint8(b >> np.uint8(4)))
        out[first + np.uintp(1)] = np.uint8(np.uint8(b << np.uint8(4)) | np.uint8(c >> np.uint8(2)))
        out[first + np.uintp(2)] = np.uint8(np.uint8(c << np.uint8(6)) | d)


@compiled
def base64(data: Bytes, at: int, end: int, out: Bytes, to: int, bits: Bytes) -> tuple[int, int]:
    """Decode the string at `at`; return the offset of its closing quotation mark and the end of the bytes.

    The offset is UNSUPPORTED if the string is not plain base64. Whole blocks are decoded; bytes after the last
    character are overwritten by the next string.
    """
    begin = at
    while at < end:
        worst = sextets(data, at, bits)
        octets(bits, out, to)
        if worst > 63:
            break
        at, to = at + BLOCK, to + BLOCK // 4 * 3
    valid = 0
    while valid < BLOCK and bits[valid] <= 63:
        valid += 1
    close, to = at + valid, to + valid // 4 * 3
    odd = valid % 4
    if odd >= 2 and data[close] == _PAD:  # one or two more bytes; the unused bits must be 0
        if bits[valid - 1] & (15 if odd == 2 else 3):
            return UNSUPPORTED, to
        close, to = close + 4 - odd, to + odd - 1
        if data[close - 1] != _PAD:
            return UNSUPPORTED, to
    elif odd:
        return UNSUPPORTED, to
    return (close, to) if close < end and close >= begin and data[close] == _QUOTE else (UNSUPPORTED, to)


@compiled
def text(data: Bytes, at: int, end: int, out: Bytes, to: int) -> tuple[int, int]:
    """Copy the string at `at` block by block; return the offset of its closing quotation mark and the copy's end.

    The offset is UNSUPPORTED if the string has an escape or a control character.
    """
    while at < end:
        begin, first, size = np.uintp(at), np.uintp(to), np.uint8(BLOCK)
        for i in range(BLOCK):
            c = data[begin + np.uintp(i)]
            out[first + np.uintp(i)] = c
            ends = (c == np.uint8(_QUOTE)) | (c == np.uint8(_BACKSLASH)) | (c < np.uint8(32))
            size = min(size, np.uint8(i) if ends else np.uint8(BLOCK))
        at, to = at + int(size), to + int(size)
        if size < BLOCK:
            return at if at < end and data[at] == _QUOTE else UNSUPPORTED, to
    return UNSUPPORTED, to


@compiled
def whole(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """Parse a whole number of 1 to 18 digits; return it and its end, UNSUPPORTED as the end for anything else."""
    begin, value = at, 0
    while at < end and at < begin + 19 and 0 <= int(data[at]) - _ZERO <= 9:
        value = value * 10 + int(data[at]) - _ZERO
        at += 1
    size = at - begin
    if size == 0 or size > 18 or (size > 1 and data[begin] == _ZERO):
        return 0, UNSUPPORTED
    return value, at


@compiled
def member(data: Bytes, at: int, members: Bytes, lengths: Longs) -> int:
    """Return the number of the member at `at`, identified by its first characters; UNSUPPORTED for an unknown one."""
    first, second = data[at + 1], data[at + 2]
    if first == _D:
        number = _DATA
    elif first == _P:
        number = _KEY
    elif first == _S:
        number = _SUB if second == _U else _SEQUENCE
    else:
        number = _ACTION if second == _C else _ARRIVED
    return number if same(data, at, members[number], lengths[number]) else UNSUPPORTED


@compiled
def record(
    data: Bytes, at: int, end: int, members: Bytes, lengths: Longs, out: LineBuffers, row: int, bits: Bytes
) -> int:
    """Parse the record whose first member is at `at`; return the offset of its closing brace, or UNSUPPORTED."""
    payloads, payload_begins, keys, key_begins, sequences, sequence_begins, arrived, subs = out
    seen = 0
    while at < end:
        which = member(data, at, members, lengths)
        if which == UNSUPPORTED or seen & 1 << which:
            return UNSUPPORTED
        seen |= 1 << which
        at += lengths[which]
        if which == _DATA:
            at, to = base64(data, at, end, payloads, payload_begins[row], bits)
            payloads[to], payload_begins[row + 1] = _LINE_BREAK, to + 1
        elif which == _KEY:
            at, key_begins[row + 1] = text(data, at, end, keys, key_begins[row])
        elif which == _SEQUENCE:
            begin = sequence_begins[row]
            at, sequence_begins[row + 1] = text(data, at, end, sequences, begin)
        elif which == _ARRIVED:
            arrived[row], at = whole(data, at, end)
        elif which == _SUB:
            subs[row], at = whole(data, at, end)
        if at == UNSUPPORTED:
            return UNSUPPORTED
        at += _DATA <= which <= _SEQUENCE  # the closing quotation mark
        if data[at] == _CLOSE:
            return at if seen == _ALL else UNSUPPORTED
        if data[at] != _COMMA:
            return UNSUPPORTED
        at += 1
    return UNSUPPORTED


@compiled
def records(
    data: Bytes, end: int, head: Bytes, tail: Bytes, members: Bytes, lengths: Longs, out: LineBuffers
) -> tuple[int, int]:
    """Parse the line that ends at `end`, without its line break; return the record count and `millisBehindLatest`.

    The count is UNSUPPORTED for a line of another form. `data` must have `SLACK` bytes behind `end`, and `out` must
    have space for as many records as the length of the line allows.
    """
    bits = np.full(BLOCK, _INVALID)
    row, at = 0, len(head)
    out.payload_begins[0], out.key_begins[0], out.sequence_begins[0] = 0, 0, 0
    if at >= end or not same(data, 0, head, at):
        return UNSUPPORTED, UNKNOWN
    while at < end and data[at] == _OPEN:
        at = record(data, at + 1, end, members, lengths, out, row, bits)
        if at == UNSUPPORTED:
            return UNSUPPORTED, UNKNOWN
        at, row = at + 1, row + 1
        if data[at] == _COMMA and data[at + 1] == _OPEN:
            at += 1
        elif not same(data, at, tail, len(tail)):
            return UNSUPPORTED, UNKNOWN
    if row == 0:
        return UNSUPPORTED, UNKNOWN
    behind, at = whole(data, at + len(tail), end)
    if at != end - 1 or data[at] != _CLOSE:
        return UNSUPPORTED, UNKNOWN
    return row, behind
