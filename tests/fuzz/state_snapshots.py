"""Fuzzes state snapshots: each must be rejected or restored and used, without crashing the process.

Most mutations recompute the checksums, so that the code behind the checksum test is reached. `NUMBA_BOUNDSCHECK=1`
makes compiled code detect out-of-bounds indexes that would not crash.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import msgspec
import numpy as np

from anomaly.keyed_state.container import seal_parts, unseal_parts
from stream_app.errors import FatalError
from stream_app.model.record import Record
from stream_app.pipeline.flow import process
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.state.packing import MAGIC, compress_state, unpack, write_container
from stream_app.pipeline.state.shard_state import ShardState
from tests import samples, snapshots
from tests.fuzz.mutations import mutated
from tests.fuzz.watch import bounded

_GAP = 30_000
_EXTREME = (0, 1, -1, 2, 255, 2**31, -(2**31), 2**32, 2**40, 2**62, 2**63 - 1, -(2**63))
_FLOATS = (0.0, -1.0, 0.5, 3.0, 64.0, 1e9, 1e38, float("inf"), float("-inf"), float("nan"))
_ANY: tuple[Any, ...] = (
    None,
    True,
    -1,
    2**63,
    1e300,
    "x",
    "",
    b"\x00",
    [],
    {},
    [[[[]]]],
    ["a"] * 3,
    {"a": 1},
)


def fuzz(seed: int, count: int) -> None:
    """Test `count` snapshots. Raises AssertionError, with the snapshot, if a property does not hold."""
    rng = random.Random(seed)
    for _ in range(count):
        event = rng.choice(sorted(snapshots.EVENTS))
        snapshot = rng.choice(_KINDS)(event, rng)
        with bounded(snapshot):
            _check_rejected_or_usable(event, snapshot)


def _check_rejected_or_usable(event: str, snapshot: bytes) -> None:
    state = _new(event)
    try:
        state.restore(snapshot)
    except FatalError:  # the documented error for an invalid snapshot
        return
    process(_records(event)[30:36], _registry(event), state, samples.MAX_BYTES)
    again = _new(event)
    again.restore(state.snapshot())


def _new(event: str) -> ShardState:
    return ShardState({event: snapshots.EVENTS[event]}, snapshots.SEEN_IDS, _GAP)


@cache
def _registry(event: str) -> Registry:
    return Registry.of([snapshots.EVENTS[event]], {event: [samples.schema(event)]})


@cache
def _records(event: str) -> list[Record]:
    return [r for r in snapshots.records(0, 400) if f'"event":"{event}"'.encode() in r.data][:40]


@cache
def _base(event: str) -> bytes:
    state = _new(event)
    process(_records(event)[:30], _registry(event), state, samples.MAX_BYTES)
    return state.snapshot()


def _bytes(event: str, rng: random.Random) -> bytes:
    """Mutate bytes of a snapshot of the current or the previous version."""
    base = snapshots.VERSION_2.read_bytes() if rng.random() < 0.3 else _base(event)
    return mutated(base, rng, [_base(event)])


def _frames(event: str, rng: random.Random) -> bytes:
    """Mutate compressed frames or the stored length, with a valid checksum."""
    changed = mutated(_base(event)[len(MAGIC) : -4], rng)
    if rng.random() < 0.2:
        changed = changed[:-8] + rng.choice((0, 1, 2**20, 2**33, 2**63)).to_bytes(8, "little")
    return _with_checksum(MAGIC + changed)


def _content(event: str, rng: random.Random) -> bytes:
    """Mutate the MessagePack content in a valid container."""
    state = unpack(_base(event))
    return write_container([mutated(msgspec.msgpack.encode(state), rng)])


def _part(event: str, rng: random.Random) -> bytes:
    """Change, remove or replace a value of the state."""
    state = unpack(_base(event))
    stored = state["events"][event]
    for _ in range(rng.choice((1, 1, 2, 3))):
        holder = rng.choice([stored, *(part for part in stored.values() if isinstance(part, dict) and part)])
        name = rng.choice(sorted(holder)) if holder else "keys"
        if rng.random() < 0.1:
            holder.pop(name, None)
        elif rng.random() < 0.1:
            holder[name] = rng.choice([*_ANY, *holder.values()])
        else:
            holder[name] = _value(holder.get(name), rng)
    if rng.random() < 0.1:
        state[rng.choice(("version", "latest"))] = rng.choice((*_EXTREME, *_ANY))
    return compress_state(state)


def _value(value: Any, rng: random.Random) -> Any:
    match value:
        case bytes():
            return _array(value, rng)
        case list():
            changed = list(value)
            if changed:
                at = rng.randrange(len(changed))
                changed[at] = rng.choice((*_ANY, *_EXTREME[:-2], *changed, changed[at]))
            return rng.choice((changed, changed, changed[:-1], changed + changed[:1]))
        case _:
            return rng.choice((*_ANY, *_EXTREME[:-2]))


def _array(data: bytes, rng: random.Random) -> bytes:
    """Set array elements to invalid indexes or lengths, or change the length of the array."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 3))):
        kind = rng.choice((np.int64, np.int64, np.int32, np.float64, np.float32, np.float32, np.uint8))
        size = np.dtype(kind).itemsize
        if len(changed) < size:
            break
        at = rng.randrange(len(changed) // size) * size
        value = rng.choice(_FLOATS if np.dtype(kind).kind == "f" else _EXTREME)
        with np.errstate(all="ignore"):
            changed[at : at + size] = np.array([value]).astype(kind).tobytes()
    match rng.randrange(6):
        case 0:
            return bytes(changed[: rng.randrange(len(changed) + 1)])
        case 1:
            return bytes(changed + changed[: rng.choice((1, 8, 80))])
        case _:
            return bytes(changed)


def _detector(event: str, rng: random.Random) -> bytes:
    """Change, remove, repeat or swap parts of the detector state and seal it again."""
    state = unpack(_base(event))
    stored = state["events"][event]["detector"]
    kind, parts = _unsealed(stored)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(parts)) if parts else 0
        match rng.randrange(8):
            case 0:
                parts = parts[:at] + parts[at + 1 :]
            case 1:
                parts = parts[: at + 1] + parts[at:]
            case 2 if parts:
                other = rng.randrange(len(parts))
                parts[at], parts[other] = parts[other], parts[at]
            case 3 | 4 if parts:
                parts[at] = mutated(parts[at], rng)
            case _ if parts:
                parts[at] = _array(parts[at], rng)
    sealed = seal_parts(kind, parts) if kind else parts[0] if parts else b""
    if rng.random() < 0.1 and len(sealed) > 40:  # mutate the header too, with a valid checksum
        head = mutated(sealed[28:-4], rng)
        sealed = _with_checksum(sealed[:28] + head)
    state["events"][event]["detector"] = sealed
    return compress_state(state)


def _unsealed(stored: bytes) -> tuple[str, list[bytes]]:
    """Return the kind and parts of a detector state; the kind is empty if the state is not sealed."""
    if not stored.startswith(b"stream-app detector"):
        return "", [stored]
    head = int.from_bytes(stored[28:32], "little")
    kind, _ = msgspec.msgpack.decode(stored[32 : 32 + head])
    parts: Sequence[memoryview] = unseal_parts(kind, stored) or []
    return kind, [bytes(part) for part in parts]


def _with_checksum(data: bytes) -> bytes:
    return data + zlib.crc32(data).to_bytes(4, "little")


_KINDS: tuple[Callable[[str, random.Random], bytes], ...] = (
    _bytes,
    _frames,
    *(_content,) * 2,
    *(_part,) * 4,
    *(_detector,) * 4,
)
