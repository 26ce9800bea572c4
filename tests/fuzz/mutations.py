"""Mutations of byte strings, as caused by faulty producers, bit errors or attackers."""

from __future__ import annotations

import random
from collections.abc import Sequence

_TOKENS = (
    *(
        b'"',
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\\",
        b"\n",
        b"\r\n",
        b" ",
        b"\t",
        b"\x00",
        b"\xff",
        b"\xed\xa0\x80",
    ),
    *(b"null", b"true", b"false", b"NaN", b"Infinity", b"-Infinity", b'""', b"{}", b"[]", b"\xef\xbb\xbf"),
    *(b"-0", b"-0.0", b"1e400", b"1e-400", b"1e1000000", b"5.0", b"1e3", b"0x10", b"1_000"),
    *(b"9223372036854775807", b"9223372036854775808", b"-9223372036854775809", b"9007199254740993"),
    *(b"4294967296", b"-2147483649", b"1" * 400, b"0." + b"1" * 400, b'"' + b"9" * 400 + b'"'),
    *(b"1767225600", b"-62135596800001", b"253402300800000"),
    *(b'"0001-01-01T00:00:00+01:00"', b'"9999-12-31T23:59:59.9999999Z"', b'"2026-02-30"', b'"24:00"'),
    *(b"\\u0000", b"\\ud800", b"\\udc00\\ud800", b"\xf0\x9f\x98\x80", b"\xc3\x28", b"\xfc"),
)


def mutated(data: bytes, rng: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """Return a mutated copy of `data`; pieces may be inserted from `others`, which are valid inputs too."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        data = _changed(data, rng, others)
    return data


def _changed(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    start = rng.randrange(len(data) + 1)
    stop = min(len(data), start + rng.choice((1, 1, 2, 4, 16, 64)))
    match rng.randrange(9):
        case 0 if data:
            at = min(start, len(data) - 1)
            return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        case 1:
            return data[:start] + bytes([rng.randrange(256)]) + data[stop:]
        case 2:
            return data[:start] + rng.choice(_TOKENS) + data[start:]
        case 3:
            return data[:start] + rng.choice(_TOKENS) + data[stop:]
        case 4:
            return data[:start] + data[stop:]
        case 5:
            return data[:stop] + data[start:stop] * rng.choice((1, 2, 30)) + data[stop:]
        case 6:
            return data[:start]
        case 7 if others:
            other = rng.choice(others)
            return data[:start] + other[rng.randrange(len(other) + 1) :]
        case _:
            return _value_replaced(data, rng)


def _value_replaced(data: bytes, rng: random.Random) -> bytes:
    """Replace the text between a colon and the next comma or brace, such as a JSON value."""
    colons = [at for at, byte in enumerate(data) if byte == 0x3A]
    if not colons:
        return data + rng.choice(_TOKENS)
    start = rng.choice(colons) + 1
    stop = start
    while stop < len(data) and data[stop] not in b",}]":
        stop += 1
    return data[:start] + rng.choice(_TOKENS) + data[stop:]
