"""SipHash-1-3 in compiled code: a keyed hash for in-memory tables with untrusted keys.

SipHash (Aumasson and Bernstein, https://www.aumasson.jp/siphash/siphash.pdf) is the hash of Python's dictionaries.
Without knowledge of the seed, keys that collide cannot be chosen. Hashes do not leave the process: neither stored
data nor results depend on them.
"""

from __future__ import annotations

import secrets

import numpy as np
from numpy.typing import NDArray

from anomaly.kernels.compiled import compiled, inlined

Bytes = NDArray[np.uint8]
Seed = NDArray[np.uint64]
Word = np.uint64

_WORD = 8
_V0, _V1 = np.uint64(0x736F6D6570736575), np.uint64(0x646F72616E646F6D)
_V2, _V3 = np.uint64(0x6C7967656E657261), np.uint64(0x7465646279746573)
_END, _EIGHT, _TOP, _BITS = np.uint64(0xFF), np.uint64(8), np.uint64(56), np.uint64(64)
_13, _16, _17, _21, _32 = (np.uint64(bits) for bits in (13, 16, 17, 21, 32))


def new_seed(size: int = 2) -> Seed:
    """Return random numbers, shape (size,)."""
    return np.array([secrets.randbits(64) for _ in range(size)], dtype=np.uint64)


@inlined
def rotated(value: Word, bits: Word) -> Word:
    """Rotate a 64-bit number to the left."""
    return (value << bits) | (value >> (_BITS - bits))


@inlined
def mixed(v0: Word, v1: Word, v2: Word, v3: Word) -> tuple[Word, Word, Word, Word]:
    """Return the four words of the state after one round."""
    v0, v2 = v0 + v1, v2 + v3
    v1, v3 = rotated(v1, _13) ^ v0, rotated(v3, _16) ^ v2
    v0 = rotated(v0, _32)
    v2, v0 = v2 + v1, v0 + v3
    v1, v3 = rotated(v1, _17) ^ v2, rotated(v3, _21) ^ v0
    return v0, v1, rotated(v2, _32), v3


@inlined
def word(data: Bytes, at: int, size: int) -> Word:
    """Read a little-endian number of `size` bytes."""
    value = np.uint64(0)
    for i in range(size):
        value |= np.uint64(data[at + i]) << (_EIGHT * np.uint64(i))
    return value


@compiled
def hash_of(data: Bytes, begin: int, size: int, seed: Seed) -> np.int64:
    """Return the hash of `size` bytes as a signed 64-bit number."""
    v0, v1, v2, v3 = seed[0] ^ _V0, seed[1] ^ _V1, seed[0] ^ _V2, seed[1] ^ _V3
    whole = size // _WORD * _WORD
    for at in range(begin, begin + whole, _WORD):
        m = word(data, at, _WORD)
        v0, v1, v2, v3 = mixed(v0, v1, v2, v3 ^ m)
        v0 ^= m
    m = (np.uint64(size) << _TOP) | word(data, begin + whole, size - whole)
    v0, v1, v2, v3 = mixed(v0, v1, v2, v3 ^ m)
    v0, v2 = v0 ^ m, v2 ^ _END
    for _ in range(3):
        v0, v1, v2, v3 = mixed(v0, v1, v2, v3)
    return np.int64(v0 ^ v1 ^ v2 ^ v3)
