"""Shard iterators as AWS documents them.

An iterator is opaque, expires after five minutes, and is bound to one stream, identified by name and creation time.
moto's iterators never expire, are wrong for shards whose sequence numbers restart at 1, name no stream if it was
requested by ARN, and AT_TIMESTAMP fails for a time after the last record.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from typing import NamedTuple

from moto.kinesis.models import KinesisBackend, Stream

from stream_app.local.moto_patches import clock
from stream_app.local.moto_patches.fault_switches import FAULT_SWITCHES
from stream_app.local.moto_patches.kinesis import errors
from stream_app.local.moto_patches.kinesis.streams import ShardState, StreamState, state_of
from stream_app.local.moto_patches.patch import replace

LIFETIME_MS = 300_000
# Lower than any ordinal: reading starts with the oldest record available when the iterator is used.
_OLDEST = -1


class Iterator(NamedTuple):
    """A position in a shard: reading continues after the ordinal `after`. Times are milliseconds since the epoch."""

    stream: str
    created: int
    shard: str
    after: int
    issued: int

    def token(self) -> str:
        """Return the opaque form that clients receive."""
        return urlsafe_b64encode(":".join(map(str, self)).encode()).decode()

    def advanced(self, after: int) -> Iterator:
        """Return an iterator for a later position in the same shard, issued now."""
        return self._replace(after=after, issued=clock.now_ms())


def parse(token: str) -> Iterator:
    """Parse a client's iterator. Raises InvalidArgumentException or ExpiredIteratorException."""
    try:
        stream, created, shard, after, issued = urlsafe_b64decode(token.encode()).decode().split(":")
        found = Iterator(stream, int(created), shard, int(after), int(issued))
    except (ValueError, binascii.Error) as error:
        raise errors.invalid_argument("Invalid ShardIterator.") from error
    now = clock.now_ms()
    if now - found.issued > LIFETIME_MS or found.issued <= FAULT_SWITCHES.iterators_expired_at:
        raise errors.expired_iterator(found.issued, now, LIFETIME_MS)
    return found


def get_shard_iterator(
    self: KinesisBackend,
    stream_arn: str | None,
    stream_name: str | None,
    shard_id: str,
    shard_iterator_type: str,
    starting_sequence_number: str | None,
    at_timestamp: datetime | float | None,
) -> str:
    """GetShardIterator. Raises ResourceNotFoundException or InvalidArgumentException."""
    stream = self.describe_stream(stream_arn=stream_arn, stream_name=stream_name)
    state = state_of(stream)
    with state.lock:
        shard = state.shards.get(shard_id)
        if shard is None:
            raise errors.shard_not_found(shard_id, stream.stream_name, self.account_id)
        if shard_iterator_type == "TRIM_HORIZON":
            after = _OLDEST
        elif shard_iterator_type == "LATEST":
            after = state.newest_ordinal
        elif shard_iterator_type == "AT_SEQUENCE_NUMBER":
            after = _ordinal(stream, state, shard, starting_sequence_number) - 1
        elif shard_iterator_type == "AFTER_SEQUENCE_NUMBER":
            after = _ordinal(stream, state, shard, starting_sequence_number)
        elif shard_iterator_type == "AT_TIMESTAMP":
            after = _at_timestamp(state, shard, at_timestamp)
        else:
            raise errors.invalid_argument(f"Invalid ShardIteratorType: {shard_iterator_type}")
    return Iterator(stream.stream_name, state.created, shard_id, after, clock.now_ms()).token()


def _ordinal(stream: Stream, state: StreamState, shard: ShardState, text: str | None) -> int:
    """Return the ordinal of a sequence number. Raises InvalidArgumentException if this shard did not issue it.

    The number of a trimmed record is valid: as on AWS, reading then starts with the oldest record.
    """
    if text is None or not text.isdecimal():
        raise errors.invalid_argument(
            "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or "
            "(2) TRIM_HORIZON or LATEST and no StartingSequenceNumber."
        )
    number = int(text)
    if not state.issued(number, shard):
        raise errors.invalid_argument(
            f"StartingSequenceNumber {text} used in GetShardIterator on shard {shard.shard.shard_id} in stream "
            f"{stream.stream_name} under account {stream.account_id} is invalid because it did not come from this "
            "stream."
        )
    return state.numbering.ordinal(number)


def _at_timestamp(state: StreamState, shard: ShardState, at: datetime | float | None) -> int:
    if at is None:
        raise errors.invalid_argument(
            "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP."
        )
    wanted = milliseconds(at)
    now = clock.now_ms()
    if wanted > now:
        raise errors.invalid_argument(
            "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. "
            f"timestampInMillis: {wanted}, currentTimestampInMillis: {now}"
        )
    found = shard.log.before(wanted)
    return found if found is not None else state.newest_ordinal


def milliseconds(at: datetime | float) -> int:
    """Convert a request's timestamp (epoch seconds, or a datetime if moto has parsed it) to milliseconds."""
    return round((at.timestamp() if isinstance(at, datetime) else float(at)) * 1_000)


def apply() -> None:
    """Install the patch."""
    replace(KinesisBackend, "get_shard_iterator", get_shard_iterator)
