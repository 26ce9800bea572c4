"""Deaggregation of Kinesis Producer Library (KPL) records, compatible with KCL.

The format is documented in KPL's `aggregation-format.md`: the bytes F3 89 9A C2, a Protocol Buffers message, its MD5.
AggregatedRecord = {1: partition keys, 2: explicit hash keys, 3: records}, Record = {1: index of its partition key,
2: index of its explicit hash key (optional), 3: data, 4: tags}, Tag = {1: key, 2: value}. KCL implements it in class
`AggregatorUtil`.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from stream_app.recovery.stream.protobuf import BYTES, VARINT, MalformedError, fields

MAGIC = b"\xf3\x89\x9a\xc2"
_MD5_BYTES = 16
_HASH_KEYS = 1 << 128
_HASH_KEY_DIGITS = len(str(_HASH_KEYS))
_TO_INT, _NEGATIVE = 0xFFFF_FFFF, 0x8000_0000


class UserRecord(NamedTuple):
    """One record of the producer; its index within the aggregate is the sub-sequence number."""

    partition_key: str
    data: bytes
    explicit_hash_key: str | None = None

    @property
    def hash_key(self) -> int:
        """The 128-bit hash key that determines the shard; -1 or 2**128 if it is out of range.

        Raises ValueError if the explicit hash key is not a number; `unpack` never returns such a record.
        """
        if self.explicit_hash_key is None:
            digest = hashlib.md5(
                self.partition_key.encode("utf-8", "replace"), usedforsecurity=False
            ).digest()
            return int.from_bytes(digest, "big")
        found = _big_integer(self.explicit_hash_key)
        if found is None:
            raise ValueError("the explicit hash key is not a number")
        return found


class Aggregate(NamedTuple):
    """The records that KCL reads, and the number of records after them that it drops.

    KCL stops at the first record whose keys it cannot read; `why` is the reason.
    """

    records: Sequence[UserRecord]
    unreadable: int = 0
    why: str = ""

    def __len__(self) -> int:
        return len(self.records) + self.unreadable


def unpack(data: bytes) -> Sequence[UserRecord] | None:
    """Return the user records that KCL reads from a Kinesis record's data; None if it is not an aggregate."""
    found = aggregate(data)
    return None if found is None else found.records


def aggregate(data: bytes) -> Aggregate | None:
    """Parse the data of a Kinesis record; None if it is not an aggregate. Never raises.

    Like KCL, treats data with the magic number but a wrong checksum or malformed message as a plain record.
    """
    if data[:4] == MAGIC and len(data) > len(MAGIC) + _MD5_BYTES:
        message = data[len(MAGIC) : -_MD5_BYTES]
        if hashlib.md5(message, usedforsecurity=False).digest() == data[-_MD5_BYTES:]:
            try:
                return _aggregated(message)
            except MalformedError:
                pass
    return None


def delivered(records: Sequence[UserRecord], first_hash: int, last_hash: int) -> bool:
    """Return whether KCL delivers an aggregate: not if a record's hash key belongs to another shard.

    KCL drops such an aggregate completely and silently. This happens if the producer aggregates with an outdated
    shard map or none. `records` are the records that KCL reads.
    """
    return all(first_hash <= record.hash_key <= last_hash for record in records)


def _aggregated(message: bytes) -> Aggregate:
    keys: list[str] = []
    hashes: list[str] = []
    packed: list[tuple[int, int | None, bytes]] = []
    for number, kind, value in fields(message):
        if kind != BYTES or not isinstance(value, bytes):
            continue
        if number == 1:
            keys.append(_text(value))
        elif number == 2:
            hashes.append(_text(value))
        elif number == 3:
            packed.append(_record(value))
    found: list[UserRecord] = []
    parsed = [_big_integer(text) is not None for text in hashes]
    for key, explicit, data in packed:
        why = _unreadable(key, explicit, len(keys), parsed)
        if why:
            return Aggregate(found, len(packed) - len(found), why)
        found.append(UserRecord(keys[key], data, None if explicit is None else hashes[explicit]))
    return Aggregate(found)


def _unreadable(key: int, explicit: int | None, keys: int, parsed: Sequence[bool]) -> str:
    if key >= keys:
        return "its partition key is not in the aggregate's table"
    if explicit is not None and explicit >= len(parsed):
        return "its explicit hash key is not in the aggregate's table"
    return "" if explicit is None or parsed[explicit] else "its explicit hash key is not a number"


def _big_integer(text: str) -> int | None:
    """Parse like Java's `new BigInteger(text)`: None if Java throws, -1 or 2**128 if out of the hash key range.

    The result is bounded, because a producer controls the length and Python's `int` rejects over 4,300 digits.
    """
    digits = text[1:] if text[:1] in ("-", "+") else text
    # Java checks UTF-16 units, and accepts the decimal digits of all scripts up to U+FFFF.
    if not digits.isascii():
        if not all(unit <= "\uffff" and unit.isdecimal() for unit in digits):
            return None
        digits = "".join(str(unicodedata.decimal(unit)) for unit in digits)
    if not digits.isdigit():
        return None
    significant = digits.lstrip("0") or "0"
    if text[0] == "-" and significant != "0":
        return -1
    return min(int(significant), _HASH_KEYS) if len(significant) <= _HASH_KEY_DIGITS else _HASH_KEYS


def _record(message: bytes) -> tuple[int, int | None, bytes]:
    key: int | None = None
    explicit: int | None = None
    data: bytes | None = None
    for number, kind, value in fields(message):
        if isinstance(value, int):
            if number == 1 and kind == VARINT:
                key = _index(value)
            elif number == 2 and kind == VARINT:
                explicit = _index(value)
        elif kind == BYTES and number == 3:
            data = value
        elif kind == BYTES and number == 4:
            _check_tag(value)
    if key is None or data is None:
        raise MalformedError
    return key, explicit, data


def _check_tag(message: bytes) -> None:
    if not any(number == 1 and kind == BYTES for number, kind, _ in list(fields(message))):
        raise MalformedError


def _index(value: int) -> int:
    """Cast an index from `long` to `int` as KCL does; a negative one, which no table contains, becomes 2**32."""
    cast = value & _TO_INT
    return cast if cast < _NEGATIVE else _TO_INT + 1


def _text(value: bytes) -> str:
    # Java replaces malformed UTF-8 instead of rejecting it.
    return value.decode("utf-8", "replace")
