"""How a shard's state travels: as MessagePack, compressed while it is made, so that it is never there twice."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa

from anomaly.container import Buffer, Pieces

# So many bytes are compressed at once, or a little more: as many as a processor's cache holds.
_FRAME = 2**18
_LZ4, _ZSTD, _ZLIB = b"\x04\x22\x4d\x18", b"\x28\xb5\x2f\xfd", b"\x78"


def compressed(state: Mapping[str, Any]) -> bytes:
    """Built-in types, buffers and `Pieces` as bytes: equal states give equal ones.

    Buffers may show what lives on; they are read before this returns.
    """
    codec = pa.Codec("lz4")  # twice as quick as zstd, and what it makes is a fifth larger
    frame, whole = bytearray(), io.BytesIO()
    for piece in pieces(state):
        view = memoryview(piece)
        for at in range(0, len(view), _FRAME):
            frame += view[at : at + _FRAME]
            if len(frame) >= _FRAME:
                whole.write(codec.compress(frame))
                frame.clear()
    whole.write(codec.compress(frame))
    return whole.getvalue()


def opened(data: bytes) -> Buffer:
    """What was compressed, now or by a version before; what is not compressed as it is. Raises ValueError."""
    try:
        if data.startswith((_LZ4, _ZSTD)):
            return _read(data, "lz4" if data.startswith(_LZ4) else "zstd")
        return zlib.decompress(data) if data.startswith(_ZLIB) else data
    except (OSError, zlib.error) as error:
        raise ValueError(str(error)) from error


def _read(data: bytes, codec: Literal["lz4", "zstd"]) -> memoryview:
    """It is read twice, the first time for its length: that takes less than to copy what has no room any more."""
    stream, length = pa.CompressedInputStream(pa.BufferReader(data), codec), 0
    while more := len(stream.read(_FRAME)):
        length += more
    whole = np.empty(length, np.uint8).data
    stream, at = pa.CompressedInputStream(pa.BufferReader(data), codec), 0
    while more := stream.readinto(whole[at : at + _FRAME]):
        at += more
    return whole


def pieces(value: Any) -> Iterable[Buffer]:
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
        yield from pieces(item)


def _binary(length: int, parts: Iterable[Buffer]) -> Iterator[Buffer]:
    """Raises OverflowError from 4 GiB on, where MessagePack ends."""
    yield b"\xc6" + length.to_bytes(4, "big")
    yield from parts
