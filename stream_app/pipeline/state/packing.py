"""Serialization of a shard's state: a versioned, compressed container with a checksum.

A version 3 container is MAGIC, MessagePack in LZ4 frames, the length of the MessagePack (8 bytes, little-endian), and
the CRC-32 of all bytes before it (4 bytes, little-endian). Earlier versions, still readable, are only the compressed
MessagePack. Writing makes no copy of the uncompressed state, reading makes one.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa

from anomaly.keyed_state.container import Buffer, Pieces

# Decoded MessagePack: callers know what they packed.
Unpacked = Any

MAGIC = b"stream-app state 3\n"
# Bytes per compressed frame, or slightly more: what fits into a processor's cache.
_FRAME = 2**18
_LZ4, _ZSTD, _ZLIB = b"\x04\x22\x4d\x18", b"\x28\xb5\x2f\xfd", b"\x78"
_LENGTH, _CHECK = 8, 4
# LZ4 expands a byte to at most 255 bytes. zstd and zlib, used by earlier versions, have no such limit.
_MAX_LZ4_RATIO, _MAX_RATIO, _MIN_SIZE_LIMIT = 255, 1_000, 16 * 2**20


def compress_state(state: Mapping[str, object]) -> bytes:
    """Serialize built-in types, buffers and `Pieces` to a container; equal states give equal bytes.

    Buffers may be views of arrays that change later: they are read before this returns.
    """
    return write_container(messagepack_pieces(state))


def write_container(content: Iterable[Buffer]) -> bytes:
    """Return a container for MessagePack given in pieces."""
    codec = pa.Codec("lz4")  # twice as fast as zstd, for a fifth more bytes
    frame, whole, length, check = bytearray(), io.BytesIO(), 0, 0

    def write(data: Buffer) -> None:
        nonlocal check
        whole.write(data)
        check = zlib.crc32(data, check)

    write(MAGIC)
    for piece in content:
        view = memoryview(piece)
        length += len(view)
        for at in range(0, len(view), _FRAME):
            frame += view[at : at + _FRAME]
            if len(frame) >= _FRAME:
                write(codec.compress(frame))
                frame.clear()
    write(codec.compress(frame))
    write(length.to_bytes(_LENGTH, "little"))
    whole.write(check.to_bytes(_CHECK, "little"))
    return whole.getvalue()


def is_container(data: Buffer) -> bool:
    """Return whether bytes start like a container of the current version."""
    return bytes(memoryview(data)[: len(MAGIC)]) == MAGIC


def read_container(data: Buffer) -> Buffer:
    """Return the MessagePack in a container of the current or an earlier version; raise ValueError if it is damaged.

    Bytes that start like none of these are returned unchanged.
    """
    view = memoryview(data)
    try:
        if is_container(view):
            return _current(view)
        if view[: len(_LZ4)] in (_LZ4, _ZSTD):
            return _earlier(view, "lz4" if view[: len(_LZ4)] == _LZ4 else "zstd")
        return _inflated(view) if view[: len(_ZLIB)] == _ZLIB else view
    except (OSError, zlib.error) as error:
        raise ValueError(str(error)) from error


def _current(view: memoryview) -> memoryview:
    end = len(view) - _CHECK
    if end < len(MAGIC) + _LENGTH or zlib.crc32(view[:end]) != int.from_bytes(view[end:], "little"):
        raise ValueError("the checksum does not match: the snapshot is damaged or incomplete")
    body, length = view[len(MAGIC) : end - _LENGTH], int.from_bytes(view[end - _LENGTH : end], "little")
    if length > _MAX_LZ4_RATIO * len(body):
        raise ValueError(f"a length of {length} bytes is impossible for {len(body)} compressed bytes")
    return _decompressed(body, "lz4", length)


def _earlier(view: memoryview, codec: Literal["lz4", "zstd"]) -> memoryview:
    """Decompress twice, first to find the length: this is faster than growing a buffer by copies."""
    limit = _size_limit(view)
    stream, length = pa.CompressedInputStream(pa.BufferReader(view), codec), 0
    while more := len(stream.read(_FRAME)):
        length += more
        if length > limit:
            raise ValueError(f"more than {limit} bytes are impossible for {len(view)} compressed bytes")
    return _decompressed(view, codec, length)


def _decompressed(body: memoryview, codec: Literal["lz4", "zstd"], length: int) -> memoryview:
    whole = np.empty(length, np.uint8).data
    stream, at = pa.CompressedInputStream(pa.BufferReader(body), codec), 0
    while at < length and (more := stream.readinto(whole[at : at + _FRAME])):
        at += more
    if at < length or stream.read(1):
        raise ValueError(f"the content does not have the stated length of {length} bytes")
    return whole


def _inflated(view: memoryview) -> bytes:
    stream, limit = zlib.decompressobj(), _size_limit(view)
    content = stream.decompress(view, limit)
    if not stream.eof:
        raise ValueError("the zlib stream is incomplete or exceeds the size limit")
    return content


def _size_limit(view: memoryview) -> int:
    return max(_MIN_SIZE_LIMIT, _MAX_RATIO * len(view))


def messagepack_pieces(value: object) -> Iterable[Buffer]:
    """Encode a value as MessagePack; buffers are passed through after their header, without a copy."""
    match value:
        case Mapping():
            return _map(value)
        case Pieces(length=length, pieces=inner):
            return _binary(length, inner)
        case memoryview():
            return _binary(value.nbytes, [value])
        case _:
            return [msgspec.msgpack.encode(value)]


def _map(value: Mapping[str, object]) -> Iterator[Buffer]:
    yield b"\xdf" + len(value).to_bytes(4, "big")
    for key, item in value.items():
        yield msgspec.msgpack.encode(key)
        yield from messagepack_pieces(item)


def _binary(length: int, parts: Iterable[Buffer]) -> Iterator[Buffer]:
    """Encode a binary value. Raises OverflowError from 4 GiB on, the limit of MessagePack."""
    yield b"\xc6" + length.to_bytes(4, "big")
    yield from parts


def pack(value: object) -> bytes:
    """Encode built-in types as MessagePack."""
    return msgspec.msgpack.encode(value)


def unpack(data: bytes) -> Unpacked:
    """Decode the output of `pack` or of `compress_state`. Raises ValueError if it is damaged."""
    return msgspec.msgpack.decode(read_container(data))
