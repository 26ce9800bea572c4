"""Snapshots of `NearestValue`: the block format and the earlier version 2 format."""

from __future__ import annotations

import hashlib
import math

import msgspec
import numpy as np
import pytest

from anomaly.detector import StateError
from anomaly.keyed_state.table import to_bytes
from anomaly.nearest import NearestValue
from anomaly.nearest_value.packed_state import BLOCK
from tests.unit.detectors import quick, random_rows


def as_version_2(detector: NearestValue) -> bytes:
    """Return a version 2 snapshot: whole arrays, preceded by the checksum."""
    head, arrays = detector._table.dump()
    held = arrays["held"][arrays["held"] < np.inf]
    ranked = np.ascontiguousarray(held.astype("<f4").view(np.uint8).reshape(-1, 4).T)
    parts = [
        msgspec.msgpack.encode(detector._names),
        bytes(head),
        *(bytes(to_bytes(ranked if name == "held" else array)) for name, array in arrays.items()),
    ]
    kind = f"nearest value 2, {detector.capacity} of a channel"
    begin = msgspec.msgpack.encode((kind, [len(part) for part in parts]))
    content = b"".join([len(begin).to_bytes(4, "little"), begin, *parts])
    check = hashlib.blake2b(content, digest_size=16).digest()
    return b"stream-app detector state 1\n" + check + content


def test_a_version_2_snapshot_is_read_unless_it_is_damaged() -> None:
    old, new = quick(), quick()
    old.process_many(*random_rows(900, 300, seed=11))
    once = as_version_2(old)
    new.restore(once)
    assert new.snapshot() == old.snapshot()
    for at in (len(once) // 2, len(once) - 1):
        with pytest.raises(StateError, match="damaged"):
            quick().restore(once[:at] + bytes([once[at] ^ 1]) + once[at + 1 :])


@pytest.mark.parametrize("devices", [1, BLOCK - 1, BLOCK, 2 * BLOCK + 1])
def test_a_block_snapshot_contains_every_key(devices: int) -> None:
    old, new, half = quick(), quick(), quick()
    rows = random_rows(3 * devices, devices, seed=devices)
    old.process_many(*rows)
    assert old.pieces().length == len(old.snapshot())
    new.restore(old.snapshot())
    assert new.snapshot() == old.snapshot()
    kept = set(sorted(set(rows.keys))[::2])
    half.restore(old.snapshot(), kept.__contains__)
    X = np.array([[1.0, math.nan, 3.0]])
    for key in sorted(kept)[:3]:
        assert half.process_many([key], X).tolist() == old.process_many([key], X).tolist()
