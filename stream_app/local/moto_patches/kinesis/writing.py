"""PutRecord and PutRecords as AWS documents them.

A record (data plus partition key) is limited to the stream's MaxRecordSizeInKiB (default 1,024), a request to 500
records and 10 MiB. Entries of PutRecords fail individually. moto accepts larger single records and rejects requests
of half the allowed size.

Two side effects of moto are omitted: it reports each call to its CloudWatch model, which keeps two objects per call
forever, and it pushes each record to event source mappings, for which the local runner polls, as Lambda does.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

import msgspec
from moto.core.common_types import TYPE_RESPONSE
from moto.core.exceptions import JsonRESTError
from moto.kinesis.models import KinesisBackend, Stream
from moto.kinesis.responses import KinesisResponse

from stream_app.local.moto_patches import clock
from stream_app.local.moto_patches.fault_switches import FAULT_SWITCHES
from stream_app.local.moto_patches.kinesis import errors
from stream_app.local.moto_patches.kinesis.reading import JSON_TYPE
from stream_app.local.moto_patches.kinesis.streams import StreamState, state_of
from stream_app.local.moto_patches.patch import replace

MAX_RECORDS = 500
MAX_REQUEST_BYTES = 10 * 1024 * 1024
MAX_KEY_LENGTH = 256
_HASH_KEY = re.compile(r"0|[1-9][0-9]{0,38}")
_THROTTLED = "ProvisionedThroughputExceededException"


class Entry(msgspec.Struct, rename="pascal"):
    """A record to write. `data` is base64 in the request."""

    data: bytes
    partition_key: str
    explicit_hash_key: str | None = None

    @property
    def size(self) -> int:
        """Size in bytes that counts towards the limits."""
        return len(self.data) + len(self.partition_key.encode())


class _Single(Entry, rename="pascal"):
    stream_name: str | None = None
    stream_arn: str | None = msgspec.field(name="StreamARN", default=None)


class _Many(msgspec.Struct, rename="pascal"):
    records: list[Entry]
    stream_name: str | None = None
    stream_arn: str | None = msgspec.field(name="StreamARN", default=None)


class PutResult(msgspec.Struct, rename="pascal", omit_defaults=True):
    """The result of one entry: its sequence number and shard, or its error."""

    sequence_number: str | None = None
    shard_id: str | None = None
    error_code: str | None = None
    error_message: str | None = None


_decode_single = msgspec.json.Decoder(_Single).decode
_decode_many = msgspec.json.Decoder(_Many).decode
_encode = msgspec.json.Encoder().encode


class _Body(msgspec.Struct):
    """A record as GetRecords returns it. The order of the fields is their order in the response."""

    SequenceNumber: str
    ApproximateArrivalTimestamp: msgspec.Raw
    Data: bytes
    PartitionKey: str


def put_record(backend: KinesisBackend, body: bytes) -> bytes:
    """Answer a PutRecord call from JSON to JSON. Raises a moto exception if the record was not written."""
    try:
        request = _decode_single(body)
    except msgspec.MsgspecError as error:
        raise errors.serialization(str(error)) from error
    stream = backend.describe_stream(stream_arn=request.stream_arn, stream_name=request.stream_name)
    state = state_of(stream)
    with state.lock:
        key = _validated_hash_key(request, "", state.max_record_kib)
        written = _put(stream, state, request, key)
    return _encode(_raise_for_error(written))


def put_records(backend: KinesisBackend, body: bytes) -> bytes:
    """Answer a PutRecords call from JSON to JSON. Raises a moto exception if the request is invalid.

    In that case no record was written.
    """
    try:
        request = _decode_many(body)
    except msgspec.MsgspecError as error:
        raise errors.serialization(str(error)) from error
    stream = backend.describe_stream(stream_arn=request.stream_arn, stream_name=request.stream_name)
    if not 1 <= len(request.records) <= MAX_RECORDS:
        bound = "less than or equal to 500" if request.records else "greater than or equal to 1"
        raise errors.validation("records", f"have length {bound}")
    state = state_of(stream)
    with state.lock:
        keys = [
            _validated_hash_key(entry, f"records.{number}.member.", state.max_record_kib)
            for number, entry in enumerate(request.records, start=1)
        ]
        if sum(entry.size for entry in request.records) > MAX_REQUEST_BYTES:
            raise errors.invalid_argument("Records size exceeds 10 MB limit")
        written = [_put(stream, state, entry, key) for entry, key in zip(request.records, keys, strict=True)]
    failed = sum(one.error_code is not None for one in written)
    return _encode({"FailedRecordCount": failed, "Records": written})


def _validated_hash_key(entry: Entry, path: str, max_kib: int) -> int:
    """Validate an entry and return its hash key. Raises ValidationException or InvalidArgumentException."""
    if not 1 <= len(entry.partition_key) <= MAX_KEY_LENGTH:
        bound = "less than or equal to 256" if entry.partition_key else "greater than or equal to 1"
        raise errors.validation(f"{path}partitionKey", f"have length {bound}")
    if entry.size > max_kib * 1024:
        raise errors.validation(f"{path}data", f"have length less than or equal to {max_kib * 1024}")
    if entry.explicit_hash_key is None:
        return hash_key(entry.partition_key)
    if not _HASH_KEY.fullmatch(entry.explicit_hash_key):
        raise errors.validation(
            f"{path}explicitHashKey", "satisfy regular expression pattern: 0|([1-9]\\d{0,38})"
        )
    explicit = int(entry.explicit_hash_key)
    if explicit >= 2**128:
        raise errors.invalid_argument(
            "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. "
            f"Specified value was {entry.explicit_hash_key}"
        )
    return explicit


@lru_cache(maxsize=65_536)
def hash_key(partition_key: str) -> int:
    """Return the hash key of a partition key: its MD5 as an unsigned 128-bit integer."""
    return int.from_bytes(hashlib.md5(partition_key.encode(), usedforsecurity=False).digest(), "big")


def _put(stream: Stream, state: StreamState, entry: Entry, key: int) -> PutResult:
    shard = state.route(key)
    shard_id = shard.shard.shard_id
    if FAULT_SWITCHES.throttles_put(stream.stream_name):
        message = errors.rate_exceeded(shard_id, stream.stream_name, stream.account_id)
        return PutResult(error_code=_THROTTLED, error_message=message)
    arrival = max(clock.now_ms(), shard.log.latest_arrival)
    ordinal = state.next_ordinal()
    number = str(state.numbering.number(ordinal, shard.shard._shard_id))
    stamp = msgspec.Raw(b"%d.%03d" % divmod(arrival, 1_000))
    body = _encode(_Body(number, stamp, entry.data, entry.partition_key))
    shard.log.append(ordinal, arrival, entry.size, body)
    return PutResult(sequence_number=number, shard_id=shard_id)


def _raise_for_error(written: PutResult) -> PutResult:
    if written.error_code is not None:
        raise JsonRESTError(written.error_code, str(written.error_message))
    return written


def _put_record_internal(
    self: Stream, partition_key: str, explicit_hash_key: str, data: str
) -> tuple[str, str]:
    """Write a record for another moto service, such as a CloudWatch Logs subscription. `data` is base64."""
    entry = msgspec.convert(
        {"Data": data, "PartitionKey": partition_key, "ExplicitHashKey": explicit_hash_key or None}, Entry
    )
    state = state_of(self)
    with state.lock:
        written = _raise_for_error(
            _put(self, state, entry, _validated_hash_key(entry, "", state.max_record_kib))
        )
    return str(written.sequence_number), str(written.shard_id)


def _put_record(self: KinesisResponse) -> TYPE_RESPONSE:
    answer = put_record(self.kinesis_backend, self.body.encode())
    return 200, {"Content-Type": JSON_TYPE}, answer.decode()


def _put_records(self: KinesisResponse) -> TYPE_RESPONSE:
    answer = put_records(self.kinesis_backend, self.body.encode())
    return 200, {"Content-Type": JSON_TYPE}, answer.decode()


def apply() -> None:
    """Install the patch."""
    replace(KinesisResponse, "put_record", _put_record)
    replace(KinesisResponse, "put_records", _put_records)
    replace(Stream, "put_record", _put_record_internal)
