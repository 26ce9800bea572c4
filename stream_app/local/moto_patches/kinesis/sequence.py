"""Sequence numbers as AWS gives them: 56 digits, unique in the stream, rising, and telling their shard.

moto counts 1, 2, 3 … in each shard, so that the numbers of two shards collide and a child starts below its parent.
On AWS they are opaque; here, as there, the time at which the stream was made, a count that rises over the stream,
and the index of the shard are in them.
"""

from __future__ import annotations

from typing import NamedTuple

_LEADING = 49 * 10**54
_CREATED = 10**41
_COUNT = 10**20
# The version nibble that the numbers of AWS end in.
_VERSION = 2
_SHARD_BITS = 4


class Numbering(NamedTuple):
    """The numbers of one stream, made at `created` ms since the epoch."""

    created: int

    @property
    def _base(self) -> int:
        return _LEADING + self.created * _CREATED

    def number(self, ordinal: int, shard: int) -> int:
        """The sequence number of the `ordinal`-th thing of the stream, which is in the shard of this index."""
        return self._base + ordinal * _COUNT + (shard << _SHARD_BITS | _VERSION)

    def ordinal(self, number: int) -> int:
        """The ordinal in a number of this stream; negative for a number of an older stream."""
        return (number - self._base) // _COUNT

    def shard(self, number: int) -> int:
        """The index of the shard that a number was given in."""
        return (number - self._base) % _COUNT >> _SHARD_BITS

    def owns(self, number: int, shard: int, first: int, last: int) -> bool:
        """Whether a number was given in this stream and shard, whose ordinals are `first` to `last`."""
        ordinal = self.ordinal(number)
        return first <= ordinal <= last and number == self.number(ordinal, shard)
