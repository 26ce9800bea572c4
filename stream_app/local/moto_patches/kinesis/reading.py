"""GetRecords as AWS documents it.

At the end of a closed shard the response has ChildShards and no NextShardIterator, which KCL requires to detect
SHARD_END; moto returns iterators forever. A call returns at most 10,000 records and 10 MiB. MillisBehindLatest is 0
only if no records are left to read. Records older than the retention period are removed. moto iterates over all
records of the shard on each call, which is too slow for KCL.
"""

from __future__ import annotations

import msgspec
from moto.core.common_types import TYPE_RESPONSE
from moto.kinesis.models import KinesisBackend
from moto.kinesis.responses import KinesisResponse

from stream_app.local.moto_patches import clock
from stream_app.local.moto_patches.fault_switches import FAULT_SWITCHES
from stream_app.local.moto_patches.kinesis import errors, iterators
from stream_app.local.moto_patches.kinesis.streams import ShardState, StreamState, state_of
from stream_app.local.moto_patches.patch import replace

MAX_RECORDS = 10_000
MAX_BYTES = 10 * 1024 * 1024
JSON_TYPE = "application/x-amz-json-1.1"


class Request(msgspec.Struct, rename="pascal"):
    """The GetRecords parameters that are used here."""

    shard_iterator: str
    limit: int | None = None


_decode = msgspec.json.Decoder(Request).decode
_encode = msgspec.json.Encoder().encode


def get_records(backend: KinesisBackend, body: bytes) -> bytes:
    """Answer a GetRecords call from JSON to JSON. Raises a moto exception if the request is invalid or throttled."""
    try:
        request = _decode(body)
    except msgspec.MsgspecError as error:
        raise errors.serialization(str(error)) from error
    limit = MAX_RECORDS if request.limit is None else request.limit
    if limit < 1:
        raise errors.validation("limit", "have value greater than or equal to 1")
    if limit > MAX_RECORDS:
        raise errors.invalid_argument(
            f"Limit {limit} is more than the {MAX_RECORDS} records a call may return."
        )
    iterator = iterators.parse(request.shard_iterator)
    stream = backend.describe_stream(stream_arn=None, stream_name=iterator.stream)
    state = state_of(stream)
    with state.lock:
        shard = state.shards.get(iterator.shard)
        if shard is None or iterator.created != state.created:
            raise errors.shard_not_found(iterator.shard, iterator.stream, backend.account_id)
        if FAULT_SWITCHES.throttles_get(iterator.stream):
            raise errors.throttled(iterator.shard, iterator.stream, backend.account_id)
        shard.log.trim(arrived_before=state.horizon(stream))
        return _answer(state, shard, iterator, limit)


def _answer(state: StreamState, shard: ShardState, iterator: iterators.Iterator, limit: int) -> bytes:
    found = shard.log.read(iterator.after, limit, MAX_BYTES)
    behind = max(1, clock.now_ms() - found.behind) if found.behind is not None else 0
    if shard.exhausted(found.last):
        tail = b'"ChildShards":' + _encode(_children(state, shard))
    else:
        tail = b'"NextShardIterator":"' + iterator.advanced(found.last).token().encode() + b'"'
    return b'{"Records":[%b],"MillisBehindLatest":%d,%b}' % (b",".join(found.bodies), behind, tail)


def _children(state: StreamState, parent: ShardState) -> list[dict[str, object]]:
    name = parent.shard.shard_id
    children = (child.shard for child in state.shards.values())
    return [
        {
            "ShardId": child.shard_id,
            "ParentShards": [shard for shard in (child.parent, child.adjacent_parent) if shard],
            "HashKeyRange": {
                "StartingHashKey": str(child.starting_hash),
                "EndingHashKey": str(child.ending_hash),
            },
        }
        for child in children
        if name in (child.parent, child.adjacent_parent)
    ]


def _get_records(self: KinesisResponse) -> TYPE_RESPONSE:
    answer = get_records(self.kinesis_backend, self.body.encode())
    return 200, {"Content-Type": JSON_TYPE}, answer.decode()


def apply() -> None:
    """Install the patch."""
    replace(KinesisResponse, "get_records", _get_records)
