"""The host's heap as an image to which its forks can go back, page by page.

Python counts references inside objects, so a fork copies every page on which it only looked something up. Most of
these counts are soon what they were, but a copy stays a copy. Therefore the host puts a file in memory under its
heap, as a private mapping: a fork that drops its copy of a page (MADV_DONTNEED) has the file's page again.

To drop a copy that equals the file's page changes nothing, as long as nobody writes in between. So comparing and
dropping are one compiled loop, which touches no Python object, in a process that has no other thread.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numpy.typing import NDArray

from anomaly.compiled import compiled

_PAGE = mmap.PAGESIZE
_LEAST = 1 << 18  # smaller mappings are the loader's and the C library's own, and of no account
_HOLE = 16  # so many pages that were never touched stay out of the file
_ROOM = 1 << 40  # the file's size, nearly all of it a hole: a mapping that grows must not run over its end
_PIECE = 1 << 20
_READ, _WRITE = mmap.PROT_READ, mmap.PROT_WRITE
_IN_PLACE = mmap.MAP_PRIVATE | 0x10  # MAP_FIXED
_POPULATE = 22  # MADV_POPULATE_READ
_PAGEMAP = Path("/proc/self/pagemap")
_THERE, _OF_FILE = np.uint64(3 << 62), np.uint64(1 << 61)  # present or swapped; a file's page, not a copy
_AT_A_TIME = 1 << 13  # pages of which Linux is asked

_pwrite: Any = types.ExternalFunction(
    "pwrite", types.int64(types.intc, types.uintp, types.uintp, types.int64)
)
_mmap: Any = types.ExternalFunction(
    "mmap", types.uintp(types.uintp, types.uintp, types.intc, types.intc, types.intc, types.int64)
)
_memcmp: Any = types.ExternalFunction("memcmp", types.intc(types.uintp, types.uintp, types.uintp))
_madvise: Any = types.ExternalFunction("madvise", types.intc(types.uintp, types.uintp, types.intc))


class _Span(NamedTuple):
    """Addresses, and where in the file they lie."""

    begin: int
    end: int
    offset: int


@dataclass(frozen=True, slots=True)
class Image:
    """The heap as it was: `spans` of it, and where the file that has them can be read."""

    spans: tuple[_Span, ...]
    base: int
    size: int

    def restore(self) -> int:
        """Drop this process's copies of pages that are as they were. Returns how many, 0 where it has threads."""
        if len(list(Path("/proc/self/task").iterdir())) > 1:
            return 0
        with _PAGEMAP.open("rb", buffering=0) as pagemap:
            dropped = sum(
                _drop(own, begin, self.base + offset, _PAGE, mmap.MADV_DONTNEED)
                for begin, offset, own in self._copies(pagemap)
            )
        _advise(self.base, self.size, mmap.MADV_DONTNEED)  # what was read of the file is the host's
        return dropped

    def _copies(self, pagemap: FileIO) -> Iterator[tuple[int, int, NDArray[np.uint64]]]:
        """Piece by piece: its address, its place in the file, and how far behind it there are copied pages."""
        for begin, end, offset in self.spans:
            for at in range(0, end - begin, _AT_A_TIME * _PAGE):
                states = _states(pagemap, begin + at, min(end, begin + at + _AT_A_TIME * _PAGE))
                own = np.flatnonzero(((states & _THERE) != 0) & ((states & _OF_FILE) == 0))
                if len(own):
                    yield begin + at, offset + at, own.astype(np.uint64) * np.uint64(_PAGE)


def prepare() -> None:
    """Compile, or load what was compiled. It leaves objects behind, which are to be part of an image."""
    _view(-1, 0, _READ, mmap.MAP_SHARED)
    _move(np.zeros((0, 3), dtype=np.int64), -1, _PIECE, _READ, _IN_PLACE)
    _drop(np.zeros(0, dtype=np.uint64), 0, 0, _PAGE, mmap.MADV_DONTNEED)
    _advise(0, 0, mmap.MADV_DONTNEED)


def take() -> Image | None:
    """Put a file under this process's heap. None where the system has none: memory is then as it was.

    Only for a process without other threads, after `prepare`.
    """
    try:
        fd = os.memfd_create("stream-app host", os.MFD_CLOEXEC)
    except (AttributeError, OSError):
        return None
    try:
        os.ftruncate(fd, _ROOM)
        spans = tuple(_heap())
        size = sum(end - begin for begin, end, _ in spans)
        base = _view(fd, size, _READ, mmap.MAP_SHARED)
        if base % _PAGE or not _move(np.array(spans), fd, _PIECE, _READ | _WRITE, _IN_PLACE):
            return None
    except OSError:
        return None
    finally:
        os.close(fd)
    # All of it mapped here: whoever adds up the memory of processes finds it at the host.
    _advise(base, size, _POPULATE)
    return Image(spans, base, size)


def _heap() -> Iterator[_Span]:
    """Where there is heap in memory; in the file, one behind the other."""
    offset = 0
    with _PAGEMAP.open("rb", buffering=0) as pagemap:
        for begin, end in _mappings():
            there = np.flatnonzero((_states(pagemap, begin, end) & _THERE) != 0)
            for run in np.split(there, np.flatnonzero(np.diff(there) > _HOLE) + 1):
                if len(run):
                    first, last = begin + int(run[0]) * _PAGE, begin + int(run[-1] + 1) * _PAGE
                    yield _Span(first, last, offset)
                    offset += last - first


def _mappings() -> Iterator[tuple[int, int]]:
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, access, _, _, _, *name = line.split()
        begin, end = (int(address, 16) for address in addresses.split("-"))
        if access == "rw-p" and (not name or name[0] == "[heap]") and end - begin >= _LEAST:
            yield begin, end


def _states(pagemap: FileIO, begin: int, end: int) -> NDArray[np.uint64]:
    pagemap.seek(begin // _PAGE * 8)
    return np.frombuffer(pagemap.read((end - begin) // _PAGE * 8), dtype=np.uint64)


@compiled
def _view(fd: int, size: int, protection: int, flags: int) -> int:
    return int(_mmap(0, size, protection, flags, fd, 0))


@compiled
def _move(spans: Any, fd: int, piece: int, protection: int, flags: int) -> bool:
    """Write memory into the file and map that in its place; in between nothing is written to it."""
    for row in range(len(spans)):
        at, end, offset = spans[row, 0], spans[row, 1], spans[row, 2]
        while at < end:
            size = min(piece, end - at)
            if _pwrite(fd, at, size, offset) != size or _mmap(at, size, protection, flags, fd, offset) != at:
                return False
            at += size
            offset += size
    return True


@compiled
def _drop(pages: Any, begin: int, image: int, size: int, advice: int) -> int:
    dropped = 0
    for at in pages:
        own = np.uint64(begin) + at
        if _memcmp(own, np.uint64(image) + at, size) == 0 and _madvise(own, size, advice) == 0:
            dropped += 1
    return dropped


@compiled
def _advise(begin: int, size: int, advice: int) -> int:
    return int(_madvise(begin, size, advice))
