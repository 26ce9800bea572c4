"""Shard iterators as AWS documents them.

moto's never expire, are wrong on a shard whose numbers start again at 1, name no stream when it was asked for by
ARN, and AT_TIMESTAMP fails behind the last record. Here an iterator is opaque, lives five minutes, and belongs to
one stream in one life of it.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from typing import NamedTuple

from moto.kinesis.models import KinesisBackend, Stream

from stream_app.local.moto_patches import clock
from stream_app.local.moto_patches.kinesis import errors
from stream_app.local.moto_patches.kinesis.streams import ShardState, StreamState, state_of
from stream_app.local.moto_patches.patch import replace
from stream_app.local.moto_patches.switches import SWITCHES

LIFETIME_MS = 300_000
# Lower than any ordinal: the oldest record that is there when the iterator is used.
_OLDEST = -1


class Iterator(NamedTuple):
    """Reading goes on after the ordinal `after` of the shard; times in ms since the epoch."""

    stream: str
    created: int
    shard: str
    after: int
    issued: int

    def token(self) -> str:
        """The opaque form that clients get."""
        return urlsafe_b64encode(":".join(map(str, self)).encode()).decode()

    def moved(self, after: int) -> Iterator:
        """The same shard further on, issued now."""
        return self._replace(after=after, issued=clock.now_ms())


def parse(token: str) -> Iterator:
    """What a client's token means. Raises InvalidArgumentException or ExpiredIteratorException."""
    try:
        stream, created, shard, after, issued = urlsafe_b64decode(token.encode()).decode().split(":")
        found = Iterator(stream, int(created), shard, int(after), int(issued))
    except (ValueError, binascii.Error) as error:
        raise errors.invalid_argument("Invalid ShardIterator.") from error
    now = clock.now_ms()
    if now - found.issued > LIFETIME_MS or found.issued <= SWITCHES.iterators_expired_at:
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
    """GetShardIterator. Raises ResourceNotFoundException, InvalidArgumentException."""
    stream = self.describe_stream(stream_arn=stream_arn, stream_name=stream_name)
    state = state_of(stream)
    with state.lock:
        shard = state.shards.get(shard_id)
        if shard is None:
            raise errors.no_shard(shard_id, stream.stream_name, self.account_id)
        if shard_iterator_type == "TRIM_HORIZON":
            after = _OLDEST
        elif shard_iterator_type == "LATEST":
            after = state.newest
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
    """A trimmed record's number is good: reading then begins with the oldest record there is, as on AWS."""
    if text is None or not text.isdecimal():
        raise errors.invalid_argument(
            "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or "
            "(2) TRIM_HORIZON or LATEST and no StartingSequenceNumber."
        )
    number = int(text)
    if not state.gave(number, shard):
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
    return found if found is not None else state.newest


def milliseconds(at: datetime | float) -> int:
    """A timestamp of a request (epoch seconds, or a datetime when moto has parsed it) in ms."""
    return round((at.timestamp() if isinstance(at, datetime) else float(at)) * 1_000)


def apply() -> None:
    """Put the correction in place."""
    replace(KinesisBackend, "get_shard_iterator", get_shard_iterator)
