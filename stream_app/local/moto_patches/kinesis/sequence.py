"""Sequence numbers in the form of AWS: 56 digits, unique and increasing within the stream.

They encode the stream's creation time, an ordinal that increases over the whole stream, and the index of the shard.
moto counts 1, 2, 3 … in each shard, so the numbers of different shards collide and a child shard starts below its
parent. Clients must treat sequence numbers as opaque.
"""

from __future__ import annotations

from typing import NamedTuple

_LEADING = 49 * 10**54
_CREATED = 10**41
_COUNT = 10**20
# Sequence numbers of AWS end in this version nibble.
_VERSION = 2
_SHARD_BITS = 4


class Numbering(NamedTuple):
    """The sequence numbers of one stream, created at `created` milliseconds since the epoch."""

    created: int

    @property
    def _base(self) -> int:
        return _LEADING + self.created * _CREATED

    def number(self, ordinal: int, shard: int) -> int:
        """Return the sequence number for an ordinal of the stream and a shard index."""
        return self._base + ordinal * _COUNT + (shard << _SHARD_BITS | _VERSION)

    def ordinal(self, number: int) -> int:
        """Return the ordinal of a sequence number; negative for a number of a stream created earlier."""
        return (number - self._base) // _COUNT

    def shard(self, number: int) -> int:
        """Return the index of the shard that issued the sequence number."""
        return (number - self._base) % _COUNT >> _SHARD_BITS

    def owns(self, number: int, shard: int, first: int, last: int) -> bool:
        """Return whether this stream issued the number in `shard`, whose ordinals are `first` to `last`."""
        ordinal = self.ordinal(number)
        return first <= ordinal <= last and number == self.number(ordinal, shard)
