"""The compiled part of `lines`: a daemon's line of records, straight into columns.

It knows the form in which KCL's daemon writes: compact JSON, a record's members in any order, no escapes, base64 of
the standard alphabet. Where a line is otherwise it says so, and the line is for a JSON library to read.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.kernels.compiled import compiled

Bytes = NDArray[np.uint8]
Longs = NDArray[np.int64]
Begins = NDArray[np.int32]

# What a line of records begins with, and what follows the last of them.
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
# No record takes less room on the wire.
SMALLEST = int(LENGTHS.sum())
# So many characters are looked at together, whole blocks of them: so many bytes must be there behind what is looked
# at, and behind what is written.
BLOCK = SLACK = 128
# Instead of a number of records: the line is of another form.
OTHERWISE = -1
# Instead of milliseconds: null.
UNKNOWN = -1
_QUOTE, _BACKSLASH, _COMMA, _OPEN, _CLOSE, _PAD, _ZERO = (ord(character) for character in '"\\,{}=0')
_D, _P, _S, _U, _C = (ord(letter) for letter in "dpsuc")
_LINE_BREAK = 10
_INVALID = np.uint8(0xFF)


class LineBuffers(NamedTuple):
    """Where the columns go: joined texts, and where each begins, one more than there are records.

    Payloads have a line break after each; keys and sequence numbers have nothing.
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
    """Whether the first `length` bytes of `text` stand at `at`."""
    begin, different = np.uintp(at), np.uint8(0)
    for i in range(length):
        different |= data[begin + np.uintp(i)] ^ text[i]
    return bool(different == 0)


@compiled
def sextets(data: Bytes, at: int, bits: Bytes) -> np.uint8:
    """The six bits that each character of a block of base64 stands for; above 63 where one of them stands for none.

    Comparisons instead of a table, and always a whole block: this way many are looked at in one instruction.
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
    """Three bytes out of every four sextets of a block."""
    begin = np.uintp(to)
    for i in range(BLOCK // 4):
        a, b, c, d = bits[4 * i], bits[4 * i + 1], bits[4 * i + 2], bits[4 * i + 3]
        first = begin + np.uintp(3 * i)
        out[first] = np.uint8(np.uint8(a << np.uint8(2)) | np.uint8(b >> np.uint8(4)))
        out[first + np.uintp(1)] = np.uint8(np.uint8(b << np.uint8(4)) | np.uint8(c >> np.uint8(2)))
        out[first + np.uintp(2)] = np.uint8(np.uint8(c << np.uint8(6)) | d)


@compiled
def base64(data: Bytes, at: int, end: int, out: Bytes, to: int, bits: Bytes) -> Any:
    """Decode the string at `at`: its closing quotation mark, and where the bytes end; OTHERWISE for any doubt.

    Blocks are decoded whole: what lies behind the last character is written over by what comes next.
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
    if odd >= 2 and data[close] == _PAD:  # one or two bytes more, and bits that must be 0
        if bits[valid - 1] & (15 if odd == 2 else 3):
            return OTHERWISE, to
        close, to = close + 4 - odd, to + odd - 1
        if data[close - 1] != _PAD:
            return OTHERWISE, to
    elif odd:
        return OTHERWISE, to
    return (close, to) if close < end and close >= begin and data[close] == _QUOTE else (OTHERWISE, to)


@compiled
def text(data: Bytes, at: int, end: int, out: Bytes, to: int) -> Any:
    """Copy the string at `at`, block by block: its closing quotation mark, and where the copy ends.

    OTHERWISE where it has an escape or what is no character of a string.
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
            return at if at < end and data[at] == _QUOTE else OTHERWISE, to
    return OTHERWISE, to


@compiled
def whole(data: Bytes, at: int, end: int) -> Any:
    """A whole number of 1 to 18 digits, and where it ends; OTHERWISE where there is none."""
    begin, value = at, 0
    while at < end and at < begin + 19 and 0 <= int(data[at]) - _ZERO <= 9:
        value = value * 10 + int(data[at]) - _ZERO
        at += 1
    size = at - begin
    if size == 0 or size > 18 or (size > 1 and data[begin] == _ZERO):
        return 0, OTHERWISE
    return value, at


@compiled
def member(data: Bytes, at: int, members: Bytes, lengths: Longs) -> int:
    """Which member begins at `at`, OTHERWISE for one that is not known. Its first letters tell which it may be."""
    first, second = data[at + 1], data[at + 2]
    if first == _D:
        number = _DATA
    elif first == _P:
        number = _KEY
    elif first == _S:
        number = _SUB if second == _U else _SEQUENCE
    else:
        number = _ACTION if second == _C else _ARRIVED
    return number if same(data, at, members[number], lengths[number]) else OTHERWISE


@compiled
def record(
    data: Bytes, at: int, end: int, members: Bytes, lengths: Longs, room: Any, row: int, bits: Bytes
) -> int:
    """Read the record whose first member begins at `at`; where its closing brace is, OTHERWISE for any doubt."""
    payloads, payload_begins, keys, key_begins, sequences, sequence_begins, arrived, subs = room
    seen = 0
    while at < end:
        which = member(data, at, members, lengths)
        if which == OTHERWISE or seen & 1 << which:
            return OTHERWISE
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
        if at == OTHERWISE:
            return OTHERWISE
        at += _DATA <= which <= _SEQUENCE  # the closing quotation mark
        if data[at] == _CLOSE:
            return at if seen == _ALL else OTHERWISE
        if data[at] != _COMMA:
            return OTHERWISE
        at += 1
    return OTHERWISE


@compiled
def records(
    data: Bytes, end: int, head: Bytes, tail: Bytes, members: Bytes, lengths: Longs, room: Any
) -> Any:
    """Read the line that ends before `end`, without its line break.

    Returns the number of its records, or OTHERWISE for a line of another form, and the milliseconds behind the latest
    record.
    `SLACK` bytes behind `end` must be there; `room` must do for as many records as the line's length allows.
    """
    bits = np.full(BLOCK, _INVALID)
    row, at = 0, len(head)
    room.payload_begins[0], room.key_begins[0], room.sequence_begins[0] = 0, 0, 0
    if at >= end or not same(data, 0, head, at):
        return OTHERWISE, UNKNOWN
    while at < end and data[at] == _OPEN:
        at = record(data, at + 1, end, members, lengths, room, row, bits)
        if at == OTHERWISE:
            return OTHERWISE, UNKNOWN
        at, row = at + 1, row + 1
        if data[at] == _COMMA and data[at + 1] == _OPEN:
            at += 1
        elif not same(data, at, tail, len(tail)):
            return OTHERWISE, UNKNOWN
    if row == 0:
        return OTHERWISE, UNKNOWN
    behind, at = whole(data, at + len(tail), end)
    if at != end - 1 or data[at] != _CLOSE:
        return OTHERWISE, UNKNOWN
    return row, behind
