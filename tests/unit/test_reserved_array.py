"""Reserved arrays grow in place, take memory only when written, and work without a reservation."""

from __future__ import annotations

import copy
import mmap
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly.keyed_state.reserved_array import ReservedArray
from anomaly.keyed_state.table import Table

STATM = Path("/proc/self/statm")


def refused(*_: Any, **__: Any) -> Any:
    raise OSError("Cannot allocate memory")


@pytest.mark.parametrize("reserved", [True, False])
@given(counts=st.lists(st.integers(0, 60), max_size=8), shape=st.sampled_from([(), (3,), (2, 5)]))
def test_written_rows_are_kept_and_new_rows_are_zero(
    reserved: bool, counts: list[int], shape: tuple[int, ...]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if not reserved:
            patch.setattr(mmap, "mmap", refused)
        room, had = ReservedArray(60, shape, np.float32), 0
        for count in sorted(counts):
            rows = room.rows(count)
            assert rows.shape == (count, *shape)
            assert rows.dtype == np.float32
            assert not rows[had:].any()
            rows[had:], had = 1.0, count
            assert (rows == 1.0).all()


def test_rows_do_not_move() -> None:
    room = ReservedArray(100_000, (100,), np.float64)
    first, last = room.rows(1), room.rows(100_000)
    first[0, 0] = 7.0
    assert last[0, 0] == 7.0


@pytest.mark.skipif(not STATM.exists(), reason="this system does not tell what is resident")
def test_unused_rows_take_no_memory() -> None:
    def resident() -> int:
        return int(STATM.read_text().split()[1]) * mmap.PAGESIZE

    room, before = ReservedArray(1_000_000, (100,), np.float64), resident()
    room.rows(1_000)[:] = 1.0
    room.rows(900_000)
    assert resident() - before < 8_000_000


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda table: pickle.loads(pickle.dumps(table))])
def test_a_copy_is_independent(copied: Callable[[Table], Table]) -> None:
    table = Table(1_000_000, {"n": ((200,), np.float64)})
    places, _ = table.take(["a", "b"])
    table["n"][places] = 1.0
    other = copied(table)
    places, fresh = other.take(["c", "b", "d"])
    assert fresh.tolist() == [True, False, True]
    assert other["n"].sum() == 2 * 200
    other["n"][:] = 5.0
    assert table["n"].sum() == 2 * 200
    assert table.find(["c"]).tolist() == [-1]


def test_row_bytes_is_the_size_of_one_row() -> None:
    assert ReservedArray(1, (2, 5), np.float32).row_bytes == 40
