"""Growing arrays on reserved address space: memory is allocated on first write, and rows never move."""

from __future__ import annotations

import math
import mmap
from contextlib import suppress

import numpy as np
from numpy.typing import DTypeLike

from anomaly.detector import AnyArray, AnyDType

# Rows from this offset are in huge pages, which allocate up to 2 MiB early: little compared to this size.
_LARGE = 16 * 2**20
# With MAP_NORESERVE, reserved but unused memory does not count against the limits of the system.
_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)


class ReservedArray:
    """An array that grows up to `most` rows; new rows are zero.

    The address space of all rows is reserved at once, so growing copies nothing and a page is allocated by the first
    write to it. If the address space is not available (a limit, or a system without overcommit), the array is doubled
    and copied when it is full.
    """

    def __init__(self, most: int, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._most, self._shape, self._dtype = most, shape, np.dtype(dtype)
        self._memory: mmap.mmap | None = None
        self._have = 0
        self._all: AnyArray = np.zeros((0, *shape), dtype)

    @property
    def row_bytes(self) -> int:
        """Size of a row in bytes."""
        return self._dtype.itemsize * math.prod(self._shape)

    def rows(self, count: int) -> AnyArray:
        """Return the array with `count` rows; at least as many as before, at most `most`."""
        if not self._have and count:
            self._reserve()
        if count > len(self._all):
            longer = np.zeros((min(max(count, 2 * len(self._all)), self._most), *self._shape), self._dtype)
            longer[: self._have] = self._all[: self._have]
            self._all = longer
        self._have = count
        self._in_huge_pages()
        return self._all[:count]

    def __getstate__(self) -> tuple[int, tuple[int, ...], AnyDType, AnyArray]:
        """Return the rows without the reservation: a copy makes its own."""
        return self._most, self._shape, self._dtype, self._all[: self._have].copy()

    def __setstate__(self, state: tuple[int, tuple[int, ...], AnyDType, AnyArray]) -> None:
        most, shape, dtype, rows = state
        ReservedArray.__init__(self, most, shape, dtype)
        self.rows(len(rows))[:] = rows

    def _reserve(self) -> None:
        with suppress(OSError, ValueError, OverflowError):
            self._memory = mmap.mmap(-1, max(1, self._most * self.row_bytes), flags=_FLAGS)
            whole = np.frombuffer(self._memory, self._dtype, self._most * math.prod(self._shape))
            self._all = whole.reshape(self._most, *self._shape)

    def _in_huge_pages(self) -> None:
        if self._memory is not None and self._have * self.row_bytes > _LARGE:
            with suppress(AttributeError, OSError, ValueError):  # huge pages are not supported
                self._memory.madvise(mmap.MADV_HUGEPAGE, _LARGE)
            self._memory = None  # the array refers to it
