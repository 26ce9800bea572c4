"""ListShards and the descriptions of streams and shards as AWS documents them.

moto ignores ShardFilter, ExclusiveStartShardId and the limit of 1,000 shards per page, never expires closed shards,
counts all shards in OpenShardCount, and does not support MaxRecordSizeInKiB.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import datetime
from typing import TypedDict

import msgspec
from moto.core.exceptions import JsonRESTError
from moto.core.responses import ActionResult, EmptyResult
from moto.kinesis.models import Stream
from moto.kinesis.responses import KinesisResponse

from stream_app.local.moto_patches import clock
from stream_app.local.moto_patches.kinesis import errors
from stream_app.local.moto_patches.kinesis.iterators import milliseconds
from stream_app.local.moto_patches.kinesis.streams import (
    DEFAULT_MAX_RECORD_KIB,
    ShardState,
    StreamState,
    state_of,
)
from stream_app.local.moto_patches.patch import add, replace

MAX_RESULTS = 1_000
TOKEN_LIFETIME_MS = 300_000
MAX_RECORD_KIB = 10_240


class ShardFilter(TypedDict, total=False):
    """The ShardFilter parameter of ListShards."""

    Type: str
    ShardId: str
    Timestamp: datetime | float


_DEFAULT_FILTER: ShardFilter = {"Type": "FROM_TRIM_HORIZON"}


class _Token(msgspec.Struct):
    """The content of a NextToken. `after` is the last shard of the previous page."""

    stream: str
    after: str
    issued: int
    shard_filter: ShardFilter | None


ShardPredicate = Callable[[ShardState], bool]


def list_shards(self: KinesisResponse) -> ActionResult:
    """ListShards.

    Raises ResourceNotFoundException, InvalidArgumentException, ExpiredNextTokenException or ValidationException.
    """
    name, arn = self._get_param("StreamName"), self._get_param("StreamARN")
    shard_filter: ShardFilter | None = self._get_param("ShardFilter")
    after = self._get_param("ExclusiveStartShardId")
    if token := self._get_param("NextToken"):
        for other, value in (
            ("StreamName", name),
            ("ShardFilter", shard_filter),
            ("ExclusiveStartShardId", after),
        ):
            if value:
                raise errors.invalid_argument(f"NextToken and {other} cannot be provided together.")
        page = _parse(token)
        name, after, shard_filter = page.stream, page.after, page.shard_filter
    stream = self.kinesis_backend.describe_stream(stream_arn=arn, stream_name=name)
    size = min(int(self._get_param("MaxResults") or MAX_RESULTS), MAX_RESULTS)
    state = state_of(stream)
    with state.lock:
        state.expire(stream)
        selects = _shard_predicate(shard_filter or _DEFAULT_FILTER, state, stream)
        found = [s for s in state.live(stream) if selects(s) and (not after or s.shard.shard_id > after)]
        answer: dict[str, object] = {"Shards": [describe(state, shard) for shard in found[:size]]}
    if len(found) > size:
        last = found[size - 1].shard.shard_id
        answer["NextToken"] = _token(_Token(stream.stream_name, last, clock.now_ms(), shard_filter))
    return ActionResult(answer)


def _shard_predicate(shard_filter: ShardFilter, state: StreamState, stream: Stream) -> ShardPredicate:
    kind = shard_filter.get("Type")
    horizon = state.horizon(stream)
    if kind == "FROM_TRIM_HORIZON":
        return lambda shard: True
    if kind == "AT_LATEST":
        return lambda shard: shard.closed is None
    if kind == "AFTER_SHARD_ID":
        after = shard_filter.get("ShardId")
        if after is None:
            raise _missing("ShardId", kind)
        return lambda shard: shard.shard.shard_id > after
    if kind == "AT_TRIM_HORIZON":
        return _open_at(horizon)
    if kind in ("AT_TIMESTAMP", "FROM_TIMESTAMP"):
        timestamp = shard_filter.get("Timestamp")
        if timestamp is None:
            raise _missing("Timestamp", kind)
        at = max(milliseconds(timestamp), horizon)
        return (
            _open_at(at)
            if kind == "AT_TIMESTAMP"
            else lambda shard: shard.closed is None or shard.closed >= at
        )
    raise errors.validation("shardFilter.type", "satisfy enum value set of ShardFilterType")


def _open_at(at: int) -> ShardPredicate:
    return lambda shard: shard.opened <= at and (shard.closed is None or shard.closed >= at)


def _missing(name: str, kind: str) -> JsonRESTError:
    return errors.invalid_argument(f"ShardFilter of type {kind} requires {name}.")


def _token(token: _Token) -> str:
    return urlsafe_b64encode(msgspec.json.encode(token)).decode()


def _parse(text: str) -> _Token:
    try:
        token = msgspec.json.decode(urlsafe_b64decode(text.encode()), type=_Token)
    except (msgspec.MsgspecError, ValueError, binascii.Error) as error:
        raise errors.invalid_argument("Invalid NextToken.") from error
    if clock.now_ms() - token.issued > TOKEN_LIFETIME_MS:
        raise errors.expired_token()
    return token


def describe(state: StreamState, shard: ShardState) -> dict[str, object]:
    """Return a shard as in ListShards and DescribeStream. Only a closed shard has an EndingSequenceNumber."""
    index = shard.shard._shard_id
    numbers = {"StartingSequenceNumber": str(state.numbering.number(shard.first, index))}
    if shard.closing is not None:
        numbers["EndingSequenceNumber"] = str(state.numbering.number(shard.closing, index))
    description: dict[str, object] = {
        "ShardId": shard.shard.shard_id,
        "HashKeyRange": {
            "StartingHashKey": str(shard.shard.starting_hash),
            "EndingHashKey": str(shard.shard.ending_hash),
        },
        "SequenceNumberRange": numbers,
    }
    if shard.shard.parent:
        description["ParentShardId"] = shard.shard.parent
    if shard.shard.adjacent_parent:
        description["AdjacentParentShardId"] = shard.shard.adjacent_parent
    return description


_describe_stream = Stream.to_json
_describe_summary = Stream.to_json_summary


def _to_json(self: Stream, shard_limit: int | None = None) -> dict[str, object]:
    answer = _describe_stream(self, shard_limit)
    state = state_of(self)
    with state.lock:
        state.expire(self)
        live = state.live(self)
        shown = live[: shard_limit or len(live)]
        answer["StreamDescription"]["Shards"] = [describe(state, shard) for shard in shown]
    answer["StreamDescription"]["HasMoreShards"] = len(shown) < len(live)
    return answer


def _to_json_summary(self: Stream) -> dict[str, object]:
    answer = _describe_summary(self)
    answer["StreamDescriptionSummary"] |= {
        "OpenShardCount": sum(shard.is_open for shard in self.shards.values()),
        "ConsumerCount": len(self.consumers),
        "MaxRecordSizeInKiB": state_of(self).max_record_kib,
    }
    return answer


_create_stream = KinesisResponse.create_stream


def create_stream(self: KinesisResponse) -> ActionResult:
    """CreateStream with MaxRecordSizeInKiB, which moto ignores."""
    size = _record_size(self._get_param("MaxRecordSizeInKiB"))
    answer = _create_stream(self)
    stream = self.kinesis_backend.describe_stream(stream_arn=None, stream_name=self._get_param("StreamName"))
    state_of(stream).max_record_kib = size
    return answer


def update_max_record_size(self: KinesisResponse) -> ActionResult:
    """UpdateMaxRecordSize, which moto does not implement."""
    stream = self.kinesis_backend.describe_stream(stream_arn=self._get_param("StreamARN"), stream_name=None)
    state_of(stream).max_record_kib = _record_size(self._get_param("MaxRecordSizeInKiB"))
    return EmptyResult()


def _record_size(kib: int | None) -> int:
    size = DEFAULT_MAX_RECORD_KIB if kib is None else int(kib)
    if not DEFAULT_MAX_RECORD_KIB <= size <= MAX_RECORD_KIB:
        raise errors.validation("maxRecordSizeInKiB", "have value between 1024 and 10240")
    return size


def apply() -> None:
    """Install the patch."""
    replace(KinesisResponse, "list_shards", list_shards)
    replace(KinesisResponse, "create_stream", create_stream)
    replace(Stream, "to_json", _to_json)
    replace(Stream, "to_json_summary", _to_json_summary)
    add(KinesisResponse, "update_max_record_size", update_max_record_size)
