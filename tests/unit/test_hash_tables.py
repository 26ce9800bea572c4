"""Hash tables need few steps per key, even for adversarial keys."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly.kernels.compiled import compiled
from anomaly.kernels.siphash import hash_of
from stream_app.model.record import IntVector
from stream_app.pipeline.flow import process
from stream_app.pipeline.readers.unpack_kernel import hash_text
from stream_app.pipeline.state.deduplication import RecentIds, Repeats
from stream_app.pipeline.state.key_index import KeyIndex
from stream_app.pipeline.state.key_index_kernel import HASH, SLOT
from stream_app.pipeline.state.shard_state import ShardState
from tests import samples, snapshots

_BITS, _CHOSEN = 10, 1_000


@compiled
def _marks_without_a_seed(data: np.ndarray, size: int, marks: np.ndarray) -> None:
    for row in range(len(marks)):
        marks[row] = hash_text(data, row * size, size)


@pytest.fixture(scope="module")
def colliding() -> list[str]:
    """Keys that an unseeded table of 1,024 slots would put into the same slot."""
    rng, found = random.Random(5), list[str]()
    while len(found) < _CHOSEN:
        keys = [f"{rng.getrandbits(64):016x}" for _ in range(200_000)]
        data = b"".join(map(msgspec.msgpack.encode, keys))
        marks = np.zeros(len(keys), np.int64)
        _marks_without_a_seed(np.frombuffer(data, np.uint8), len(data) // len(keys), marks)
        found += [keys[row] for row in np.flatnonzero(marks & (2**_BITS - 1) == 0).tolist()]
    return found[:_CHOSEN]


def steps_of(devices: KeyIndex) -> int:
    """Return the number of slots that are probed to find every key once."""
    slots = devices._table
    used = np.flatnonzero(slots[:, SLOT] >= 0)
    home = slots[used, HASH] & (len(slots) - 1)
    return int(((used - home) & (len(slots) - 1)).sum()) + len(used)


def test_colliding_keys_need_no_more_steps_than_others(colliding: list[str]) -> None:
    devices = KeyIndex()
    assert devices.slots(colliding).tolist() == list(range(_CHOSEN))
    assert steps_of(devices) < 4 * _CHOSEN


def test_results_do_not_depend_on_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for seed in (0, 1, 2**64 - 1):
        fixed = lambda size=2, seed=seed: np.full(size, seed, dtype=np.uint64)  # noqa: E731
        monkeypatch.setattr("stream_app.pipeline.state.key_index.new_seed", fixed)
        monkeypatch.setattr("stream_app.pipeline.state.deduplication.new_seed", fixed)
        state = ShardState(samples.EVENTS, 4)
        process(snapshots.records(0, 300), samples.registry(), state, samples.MAX_BYTES)
        found.append(state.snapshot())
    assert found[0] == found[1] == found[2]


def test_hashes_equal_pythons() -> None:
    """With PYTHONHASHSEED=0, Python hashes bytes with SipHash-1-3 and a seed of two zeros."""
    texts, zeros = [random.Random(n).randbytes(n) for n in range(1, 40)], np.zeros(2, np.uint64)
    code = f"import sys; print(sys.hash_info.algorithm, *map(hash, {texts}))"
    environ = {**os.environ, "PYTHONHASHSEED": "0"}
    completed = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    name, *expected = completed.stdout.split()
    if name != "siphash13":
        pytest.skip(f"this Python hashes by {name}")
    found = [hash_of(np.frombuffer(b"?" + text, np.uint8), 1, len(text), zeros) for text in texts]
    assert found == list(map(int, expected))


# ---- The original row of a repeated ID


def check_and_add(seen: RecentIds, devices: list[int], marks: IntVector) -> tuple[Repeats, int]:
    accepted = np.ones(len(devices), dtype=np.bool_)
    met = seen.check_and_add(np.array(devices, dtype=np.int64), marks, accepted)
    return met, seen._find_originals(met, marks, accepted)


@pytest.mark.parametrize(
    "marks",
    [
        np.ones(5_000, np.int64),
        np.repeat(np.arange(1, 2_501, dtype=np.int64), 2),
        np.repeat(np.arange(1, 2_501, dtype=np.int64), 2) << 44,
        np.tile(np.arange(1, 2_501, dtype=np.int64) << 20, 2),
    ],
    ids=["one id", "each id twice", "high bits", "middle bits"],
)
@pytest.mark.parametrize("devices", [1, 50])
def test_a_batch_of_repeats_needs_few_steps_per_row(marks: IntVector, devices: int) -> None:
    _, steps = check_and_add(RecentIds(100_000), [int(mark) % devices for mark in marks.tolist()], marks)
    assert steps < 4 * len(marks)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.booleans()), max_size=40), st.integers(1, 9)
)
def test_the_original_of_a_repeat_is_the_last_accepted_row_with_its_id(
    rows: list[tuple[int, int, bool]], limit: int
) -> None:
    columns: Any = [np.array([row[at] for row in rows], dtype=kind) for at, kind in _COLUMNS]
    devices, marks, accepted = columns
    met = RecentIds(limit).check_and_add(devices, marks, accepted)
    for row, (device, mark, _) in enumerate(rows):
        originals = [at for at in range(row) if rows[at] == (device, mark, True) and not met.repeated[at]]
        assert met.originals[row] == (originals[-1] if met.repeated[row] and originals else -1)


_COLUMNS = ((0, np.int64), (1, np.int64), (2, np.bool_))
