"""Take apart what the Kinesis Producer Library packed together, as KCL does.

The format is its `aggregation-format.md`: the bytes F3 89 9A C2, a protocol-buffers message, its MD5.
AggregatedRecord = {1: partition keys, 2: explicit hash keys, 3: records}, Record = {1: index of its partition key,
2: index of its explicit hash key (optional), 3: data, 4: tags}.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

MAGIC = b"\xf3\x89\x9a\xc2"
_MD5_BYTES = 16
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class UserRecord(NamedTuple):
    """One record as the producer made it; its index among its siblings is the sub-sequence number."""

    partition_key: str
    data: bytes
    explicit_hash_key: str | None = None

    @property
    def hash_key(self) -> int:
        """The 128-bit key by which Kinesis chooses a shard."""
        if self.explicit_hash_key is not None:
            return int(self.explicit_hash_key)
        return int.from_bytes(hashlib.md5(self.partition_key.encode(), usedforsecurity=False).digest(), "big")


class _MalformedError(Exception):
    """The bytes are no message of this format."""


def unpack(data: bytes) -> Sequence[UserRecord] | None:
    """The user records in the data of one Kinesis record; None when it is not an aggregate.

    Like KCL, takes bytes that have the magic number but a wrong checksum or no readable message for data, and
    gives the records up to the first that names a key which the message does not have.
    """
    if data[:4] == MAGIC and len(data) > len(MAGIC) + _MD5_BYTES:
        message = data[len(MAGIC) : -_MD5_BYTES]
        if hashlib.md5(message, usedforsecurity=False).digest() == data[-_MD5_BYTES:]:
            try:
                return _aggregated(message)
            except _MalformedError:
                pass
    return None


def delivered(aggregate: Sequence[UserRecord], first_hash: int, last_hash: int) -> bool:
    """Whether KCL hands an aggregate on: not when one of its records belongs to another shard by its hash key.

    KCL drops all of such an aggregate, without a word. It comes about when the producer packs records by an
    outdated map of the shards, or by none.
    """
    return all(first_hash <= record.hash_key <= last_hash for record in aggregate)


def _aggregated(message: bytes) -> Sequence[UserRecord]:
    keys: list[str] = []
    hashes: list[str] = []
    packed: list[tuple[int, int | None, bytes]] = []
    for number, value in _fields(message):
        if number == 1 and isinstance(value, bytes):
            keys.append(_text(value))
        elif number == 2 and isinstance(value, bytes):
            hashes.append(_text(value))
        elif number == 3 and isinstance(value, bytes):
            packed.append(_record(value))
    found = []
    for key, explicit, data in packed:
        if key >= len(keys) or (explicit is not None and not _decimal(hashes, explicit)):
            break
        found.append(UserRecord(keys[key], data, None if explicit is None else hashes[explicit]))
    return found


def _decimal(hashes: Sequence[str], index: int) -> bool:
    return index < len(hashes) and hashes[index].isascii() and hashes[index].isdigit()


def _record(message: bytes) -> tuple[int, int | None, bytes]:
    key: int | None = None
    explicit: int | None = None
    data: bytes | None = None
    for number, value in _fields(message):
        if number == 1 and isinstance(value, int):
            key = value
        elif number == 2 and isinstance(value, int):
            explicit = value
        elif number == 3 and isinstance(value, bytes):
            data = value
    if key is None or data is None:
        raise _MalformedError
    return key, explicit, data


def _text(value: bytes) -> str:
    # Java reads broken UTF-8 with replacement characters rather than refuse it.
    return value.decode("utf-8", "replace")


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise _MalformedError
        if at + size > len(message):
            raise _MalformedError
        yield tag >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise _MalformedError
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
