"""Room for rows that come one after the other: memory is taken when it is written to, and nothing ever moves."""

from __future__ import annotations

import math
import mmap
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

# Rows from here on lie in huge pages: up to two megabytes may be taken before they are needed, which is little then.
_LARGE = 16 * 2**20
# Room that was reserved and not used counts for nothing where a system can be told so.
_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)


class ReservedArray:
    """An array of at most `most` rows, of which there are few at first; a new one holds zeros.

    It is addresses, reserved at once: growing copies nothing, and a page is taken by the first write to it. Where
    so many addresses are not to be had (a limit on them, a system that promises no memory which it has not), the
    array doubles and is copied as usual.
    """

    def __init__(self, most: int, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._most, self._shape, self._dtype = most, shape, np.dtype(dtype)
        self._memory: mmap.mmap | None = None
        self._have = 0
        self._all: NDArray[Any] = np.zeros((0, *shape), dtype)

    @property
    def row_bytes(self) -> int:
        """What a row takes."""
        return self._dtype.itemsize * math.prod(self._shape)

    def rows(self, count: int) -> NDArray[Any]:
        """The array with `count` rows, as many as before or more, at most `most`."""
        if not self._have and count:
            self._reserve()
        if count > len(self._all):
            longer = np.zeros((min(max(count, 2 * len(self._all)), self._most), *self._shape), self._dtype)
            longer[: self._have] = self._all[: self._have]
            self._all = longer
        self._have = count
        self._in_huge_pages()
        return self._all[:count]

    def __getstate__(self) -> tuple[int, tuple[int, ...], np.dtype[Any], NDArray[Any]]:
        """What is there, and not the addresses: a copy reserves its own."""
        return self._most, self._shape, self._dtype, self._all[: self._have].copy()

    def __setstate__(self, state: tuple[int, tuple[int, ...], np.dtype[Any], NDArray[Any]]) -> None:
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
            with suppress(AttributeError, OSError, ValueError):  # a system without them
                self._memory.madvise(mmap.MADV_HUGEPAGE, _LARGE)
            self._memory = None  # the array keeps it
