"""Serialization of the states of `NearestValue`, block by block, so that no copy of all states is needed.

A block contains the states of up to BLOCK keys: the arrays key, stats, moving and times unchanged, then usual and the
values held (without unused capacity). The bytes of the latter two are grouped by significance, because high bytes are
similar, which improves compression.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from anomaly.detector import AnyArray, StateError
from anomaly.kernels.compiled import compiled
from anomaly.keyed_state.container import Buffer
from anomaly.keyed_state.table import Arrays, Slots, from_bytes, little
from anomaly.nearest_value import state as layout
from anomaly.nearest_value.state import HELD

# The states of a block fit into the processor cache while they are packed, checksummed and compressed.
BLOCK = 128
_RANKS = 4
_PLAIN = ("key", "stats", "moving", "times")

Bytes = NDArray[np.uint8]
Words = NDArray[np.uint32]
Counts = NDArray[np.int64]


@compiled
def collect(held: Words, slots: Slots, counts: Counts, words: Words) -> None:
    """Copy the values held at these slots, `counts` (slots, lanes) of them, into consecutive `words`."""
    at = 0
    for i in range(len(slots)):
        for c in range(counts.shape[1]):
            count = counts[i, c]
            source, to = held[slots[i], c], words[at : at + count]
            for n in range(count):
                to[n] = source[n]
            at += count


@compiled
def spread(words: Words, counts: Counts, held: Words) -> None:
    """Copy consecutive `words` into the rows of `held`: the inverse of `collect`."""
    at = 0
    for i in range(len(held)):
        for c in range(counts.shape[1]):
            count = counts[i, c]
            source, to = words[at : at + count], held[i, c]
            for n in range(count):
                to[n] = source[n]
            at += count


@compiled
def ascending(held: NDArray[np.float32], counts: Counts) -> bool:
    """Return whether the values held of each lane are finite, distinct and sorted."""
    for i in range(len(held)):
        for c in range(counts.shape[1]):
            below = np.float32(-np.inf)
            for n in range(counts[i, c]):
                if not below < held[i, c, n] < np.inf:
                    return False
                below = held[i, c, n]
    return True


@compiled
def by_rank(words: Words, out: Bytes) -> None:
    """Split words into bytes, one row of `out` per significance."""
    for rank in range(len(out)):
        to, shift = out[rank], np.uint32(8 * rank)
        for n in range(len(words)):
            to[n] = np.uint8((words[n] >> shift) & np.uint32(255))


@compiled
def from_rank(raw: Bytes, words: Words) -> None:
    """Join bytes to words: the inverse of `by_rank`."""
    words[:] = 0
    for rank in range(len(raw)):
        source, shift = raw[rank], np.uint32(8 * rank)
        for n in range(len(words)):
            words[n] |= np.uint32(source[n]) << shift


def packed(arrays: Arrays, order: Slots) -> tuple[list[int], Iterator[Buffer]]:
    """Return the length of each block, and an iterator of the blocks, which reuses one buffer."""
    if not len(order):
        return [], iter(())
    plain = sum(_width(arrays[name]) for name in (*_PLAIN, "usual"))
    values = arrays["stats"][:, HELD].sum(axis=1, dtype=np.float64)[order].astype(np.int64)
    begins = np.arange(0, len(order), BLOCK)
    lengths: list[int] = np.add.reduceat(plain + _RANKS * values, begins).tolist()
    return lengths, _blocks(arrays, order, lengths)


def _blocks(arrays: Arrays, order: Slots, lengths: Sequence[int]) -> Iterator[Buffer]:
    buffer, word_buffer = np.empty(max(lengths), np.uint8), np.empty(max(lengths) // _RANKS, np.uint32)
    usual, held = arrays["usual"], arrays["held"].view(np.uint32)
    for number, length in enumerate(lengths):
        slots, block, at = order[number * BLOCK : (number + 1) * BLOCK], buffer[:length], 0
        for name in _PLAIN:
            end = at + len(slots) * _width(arrays[name])
            _copy(arrays[name], slots, block[at:end].view(little(arrays[name].dtype)))
            at = end
        words, first = word_buffer[: (length - at) // _RANKS], len(slots) * usual[0].size
        _copy(usual, slots, words[:first].view(usual.dtype))
        collect(held, slots, arrays["stats"][slots, HELD].astype(np.int64), words[first:])
        by_rank(words, block[at:].reshape(_RANKS, -1))
        yield block.data


def _copy(array: AnyArray, slots: Slots, out: AnyArray) -> None:
    # The mode clip writes to `out` directly; other modes would make a temporary copy.
    np.take(array, slots, axis=0, out=out.reshape(-1, *array.shape[1:]), mode="clip")


def _width(array: AnyArray) -> int:
    return int(array.itemsize * array[0].size)


def unpacked(
    parts: Sequence[Buffer], keys: int, features: int, capacity: int
) -> Iterator[tuple[int, Arrays]]:
    """Unpack the blocks of `packed`: yields the index of the first key of each block, and its arrays.

    Raises StateError before the first block if the blocks do not have the sizes for this number of keys.
    """
    width, counts = _plain_width(features), [min(BLOCK, keys - at) for at in range(0, keys, BLOCK)]
    if len(parts) != len(counts) or any(len(p) < n * width for p, n in zip(parts, counts, strict=True)):
        raise StateError(f"the blocks do not have the sizes of {keys} keys")
    return _unpacked(parts, counts, features, capacity)


def _plain_width(features: int) -> int:
    """Return the bytes of the arrays of one key, without the values held."""
    shapes = layout.layout(features, 0).values()
    return sum(np.dtype(kind).itemsize * math.prod(shape) for shape, kind in shapes)


def _unpacked(
    parts: Sequence[Buffer], counts: Sequence[int], features: int, capacity: int
) -> Iterator[tuple[int, Arrays]]:
    for number, (block, count) in enumerate(zip(parts, counts, strict=True)):
        at, arrays = 0, layout.unknown(count, features, capacity)
        for name in _PLAIN:
            end = at + arrays[name].nbytes
            arrays[name] = from_bytes(block[at:end], arrays[name].shape, arrays[name].dtype)
            at = end
        words, usual = _words(block[at:]), arrays["usual"]
        usual[:] = words[: usual.size].view(usual.dtype).reshape(usual.shape)
        _fill(words[usual.size :], arrays)
        yield number * BLOCK, arrays


def unpacked_2(
    parts: Sequence[Buffer], keys: int, features: int, capacity: int
) -> Iterator[tuple[int, Arrays]]:
    """Unpack states of format 2, in which each array is one part."""
    raw = dict(zip(layout.State._fields, parts, strict=True))
    if sum(map(len, parts)) < keys * _plain_width(features):
        raise StateError(f"the arrays do not have the sizes of {keys} keys")
    arrays = layout.unknown(keys, features, capacity)
    for name in (*_PLAIN, "usual"):
        arrays[name] = from_bytes(raw[name], arrays[name].shape, arrays[name].dtype)
    _fill(_words(raw["held"]), arrays)
    yield 0, arrays


def _words(raw: Buffer) -> Words:
    if len(raw) % _RANKS:
        raise StateError("the size of the values held is not a multiple of four bytes")
    words = np.empty(len(raw) // _RANKS, np.uint32)
    from_rank(np.frombuffer(raw, np.uint8).reshape(_RANKS, -1), words)
    return words


def _fill(words: Words, arrays: Arrays) -> None:
    """Copy the values held into the arrays. Raises StateError if their number is wrong or they are not sorted."""
    held, counted = arrays["held"], arrays["stats"][:, HELD].astype(np.float64)
    if not ((counted >= 0) & (counted <= held.shape[2]) & (counted == np.floor(counted))).all():
        raise StateError("a number of values held is impossible")
    counts = counted.astype(np.int64)
    if int(counts.sum()) != len(words):
        raise StateError(f"{len(words)} values are held (expected {int(counts.sum())})")
    spread(words, counts, held.view(np.uint32))
    if not ascending(held, counts):
        raise StateError("the values held are not sorted")
