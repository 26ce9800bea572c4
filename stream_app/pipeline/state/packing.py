"""A shard's state as bytes: one versioned container with a checksum, compressed while it is made.

Version 3 is MAGIC, MessagePack in LZ4 frames, the length of the MessagePack (8 bytes, little-endian), and the CRC-32
of all bytes before it (4 bytes). Earlier versions, which are still read, are the compressed MessagePack alone. No
copy of the uncompressed state is made when it is written, and one when it is read.
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

MAGIC = b"stream-app state 3\n"
# So many bytes are compressed at once, or a little more: as many as a processor's cache holds.
_FRAME = 2**18
_LZ4, _ZSTD, _ZLIB = b"\x04\x22\x4d\x18", b"\x28\xb5\x2f\xfd", b"\x78"
_LENGTH, _CHECK = 8, 4
# LZ4 expands a byte to at most 255. Of earlier snapshots, made by zstd or zlib, the ratio has no bound of its own.
_LZ4_RATIO, _ANY_RATIO, _ANY_LEAST = 255, 1_000, 16 * 2**20


def compress_state(state: Mapping[str, Any]) -> bytes:
    """Return built-in types, buffers and `Pieces` as a container: equal states give equal bytes.

    Buffers may be views of what changes later; they are read before this returns.
    """
    return write_container(messagepack_pieces(state))


def write_container(content: Iterable[Buffer]) -> bytes:
    """Return a container of MessagePack, which may come in pieces."""
    codec = pa.Codec("lz4")  # twice as quick as zstd, and what it makes is a fifth larger
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
    """Whether bytes begin like a container of this version."""
    return bytes(memoryview(data)[: len(MAGIC)]) == MAGIC


def read_container(data: Buffer) -> Buffer:
    """Return the MessagePack of a container of this version or of an earlier one; raise ValueError if it is damaged.

    Bytes that begin like none of them are returned as they are.
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
        raise ValueError("its checksum does not match: it is damaged or incomplete")
    body, length = view[len(MAGIC) : end - _LENGTH], int.from_bytes(view[end - _LENGTH : end], "little")
    if length > _LZ4_RATIO * len(body):
        raise ValueError(f"its length, {length} bytes, does not fit {len(body)} compressed bytes")
    return _decompressed(body, "lz4", length)


def _earlier(view: memoryview, codec: Literal["lz4", "zstd"]) -> memoryview:
    """Decompress twice, the first time for the length: that takes less than to copy what has no room any more."""
    most = _most(view)
    stream, length = pa.CompressedInputStream(pa.BufferReader(view), codec), 0
    while more := len(stream.read(_FRAME)):
        length += more
        if length > most:
            raise ValueError(f"it holds more than {most} bytes, which {len(view)} compressed bytes cannot")
    return _decompressed(view, codec, length)


def _decompressed(body: memoryview, codec: Literal["lz4", "zstd"], length: int) -> memoryview:
    whole = np.empty(length, np.uint8).data
    stream, at = pa.CompressedInputStream(pa.BufferReader(body), codec), 0
    while at < length and (more := stream.readinto(whole[at : at + _FRAME])):
        at += more
    if at < length or stream.read(1):
        raise ValueError(f"its content has not the length of {length} bytes that it names")
    return whole


def _inflated(view: memoryview) -> bytes:
    stream, most = zlib.decompressobj(), _most(view)
    content = stream.decompress(view, most)
    if not stream.eof:
        raise ValueError("the zlib stream is incomplete, or holds more than it can")
    return content


def _most(view: memoryview) -> int:
    return max(_ANY_LEAST, _ANY_RATIO * len(view))


def messagepack_pieces(value: Any) -> Iterable[Buffer]:
    """MessagePack of a value; what is large in it comes as it is, after its head."""
    match value:
        case Mapping():
            return _map(value)
        case Pieces(length=length, pieces=inner):
            return _binary(length, inner)
        case memoryview():
            return _binary(value.nbytes, [value])
        case _:
            return [msgspec.msgpack.encode(value)]


def _map(value: Mapping[str, Any]) -> Iterator[Buffer]:
    yield b"\xdf" + len(value).to_bytes(4, "big")
    for key, item in value.items():
        yield msgspec.msgpack.encode(key)
        yield from messagepack_pieces(item)


def _binary(length: int, parts: Iterable[Buffer]) -> Iterator[Buffer]:
    """Raises OverflowError from 4 GiB on, where MessagePack ends."""
    yield b"\xc6" + length.to_bytes(4, "big")
    yield from parts
