"""The states of `NearestValue`'s devices as bytes, and back: block by block, so that no copy of all is ever made.

A block holds the states of up to BLOCK keys: key, stats, moving and times as they are, then usual and of the values
held those that are there. Of these last the bytes are sorted by rank: high ones are much alike, which helps whoever
compresses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.detector import StateError
from anomaly.kernels.compiled import compiled
from anomaly.keyed_state import nearest_state as layout
from anomaly.keyed_state.container import Buffer
from anomaly.keyed_state.nearest_state import HELD
from anomaly.keyed_state.table import Arrays, Places, from_bytes, little

# So many states lie in a processor's cache while they are packed, checked and compressed.
BLOCK = 128
_RANKS = 4
_PLAIN = ("key", "stats", "moving", "times")

Bytes = NDArray[np.uint8]
Words = NDArray[np.uint32]
Counts = NDArray[np.int64]


@compiled
def collect(held: Words, places: Places, counts: Counts, words: Words) -> None:
    """The values held at these places, `counts` (places, lanes) of them, one after the other."""
    at = 0
    for i in range(len(places)):
        for c in range(counts.shape[1]):
            count = counts[i, c]
            source, to = held[places[i], c], words[at : at + count]
            for n in range(count):
                to[n] = source[n]
            at += count


@compiled
def spread(words: Words, counts: Counts, held: Words) -> None:
    """The opposite of `collect`: into the rows of `held`, in order."""
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
    """Whether the values held of each lane are finite, different and sorted."""
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
    """Each byte in the row of its rank."""
    for rank in range(len(out)):
        to, shift = out[rank], np.uint32(8 * rank)
        for n in range(len(words)):
            to[n] = np.uint8((words[n] >> shift) & np.uint32(255))


@compiled
def from_rank(raw: Bytes, words: Words) -> None:
    """The opposite of `by_rank`."""
    words[:] = 0
    for rank in range(len(raw)):
        source, shift = raw[rank], np.uint32(8 * rank)
        for n in range(len(words)):
            words[n] |= np.uint32(source[n]) << shift


def packed(arrays: Arrays, order: Places) -> tuple[list[int], Iterator[Buffer]]:
    """The length of each block, and the blocks, one at a time: what one shows changes with the next."""
    if not len(order):
        return [], iter(())
    plain = sum(_width(arrays[name]) for name in (*_PLAIN, "usual"))
    values = arrays["stats"][:, HELD].sum(axis=1, dtype=np.float64)[order].astype(np.int64)
    begins = np.arange(0, len(order), BLOCK)
    lengths: list[int] = np.add.reduceat(plain + _RANKS * values, begins).tolist()
    return lengths, _blocks(arrays, order, lengths)


def _blocks(arrays: Arrays, order: Places, lengths: Sequence[int]) -> Iterator[Buffer]:
    room, spare = np.empty(max(lengths), np.uint8), np.empty(max(lengths) // _RANKS, np.uint32)
    usual, held = arrays["usual"], arrays["held"].view(np.uint32)
    for number, length in enumerate(lengths):
        places, block, at = order[number * BLOCK : (number + 1) * BLOCK], room[:length], 0
        for name in _PLAIN:
            end = at + len(places) * _width(arrays[name])
            _copy(arrays[name], places, block[at:end].view(little(arrays[name].dtype)))
            at = end
        words, first = spare[: (length - at) // _RANKS], len(places) * usual[0].size
        _copy(usual, places, words[:first].view(usual.dtype))
        collect(held, places, arrays["stats"][places, HELD].astype(np.int64), words[first:])
        by_rank(words, block[at:].reshape(_RANKS, -1))
        yield block.data


def _copy(array: NDArray[Any], places: Places, out: NDArray[Any]) -> None:
    np.take(
        array, places, axis=0, out=out.reshape(-1, *array.shape[1:]), mode="clip"
    )  # unchecked: no copy more


def _width(array: NDArray[Any]) -> int:
    return int(array.itemsize * array[0].size)


def unpacked(
    parts: Sequence[Buffer], keys: int, features: int, capacity: int
) -> Iterator[tuple[int, Arrays]]:
    """The states of so many keys that `packed` made blocks of, `parts`: where each begins, and its arrays.

    Raises StateError, before the first of them, when the blocks are not of so many keys.
    """
    width, counts = _plain_width(features), [min(BLOCK, keys - at) for at in range(0, keys, BLOCK)]
    if len(parts) != len(counts) or any(len(p) < n * width for p, n in zip(parts, counts, strict=True)):
        raise StateError(f"the blocks are not those of {keys} keys")
    return _unpacked(parts, counts, features, capacity)


def _plain_width(features: int) -> int:
    """Bytes of a key's arrays, but for the values held."""
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
    """The same of states as they were once written: one block, each array by itself."""
    raw = dict(zip(layout.State._fields, parts, strict=True))
    if sum(map(len, parts)) < keys * _plain_width(features):
        raise StateError(f"the arrays are not those of {keys} keys")
    arrays = layout.unknown(keys, features, capacity)
    for name in (*_PLAIN, "usual"):
        arrays[name] = from_bytes(raw[name], arrays[name].shape, arrays[name].dtype)
    _fill(_words(raw["held"]), arrays)
    yield 0, arrays


def _words(raw: Buffer) -> Words:
    if len(raw) % _RANKS:
        raise StateError("the values held are not whole numbers of four bytes")
    words = np.empty(len(raw) // _RANKS, np.uint32)
    from_rank(np.frombuffer(raw, np.uint8).reshape(_RANKS, -1), words)
    return words


def _fill(words: Words, arrays: Arrays) -> None:
    """Put the values held in their places. Raises StateError when they are not as many as counted, or not sorted."""
    held, counted = arrays["held"], arrays["stats"][:, HELD].astype(np.float64)
    if not ((counted >= 0) & (counted <= held.shape[2]) & (counted == np.floor(counted))).all():
        raise StateError("a count of values held is not possible")
    counts = counted.astype(np.int64)
    if int(counts.sum()) != len(words):
        raise StateError(f"{len(words)} values are held, {int(counts.sum())} are counted")
    spread(words, counts, held.view(np.uint32))
    if not ascending(held, counts):
        raise StateError("the values held are not sorted")
