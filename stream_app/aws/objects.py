"""Objects on S3. Conditional writes ensure that neither a second run nor a late worker reverts anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from stream_app.errors import TransientError, aws_error_code, is_conflict

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

PutRequest = Mapping[str, Any]
"""A request of PutObject. Any: mypy cannot spread a TypedDict that is extended by a condition."""
DIGEST = "rows-digest"
CORRECTED = "corrected"
RECORDS = "records"
_MAX_ATTEMPTS = 5
_MISSING = frozenset({"404", "NoSuchKey", "NotFound"})


class Written(StrEnum):
    """What a conditional write did."""

    CREATED = "created"
    KEPT = "kept"
    LEFT = "left as corrected"
    REPLACED = "replaced"
    LONGER = "left as longer"


def put_exact(
    s3: S3Client,
    *,
    bucket: str,
    key: str,
    body: bytes,
    digest: str,
    content_type: str,
    records: int,
    may_shrink: bool,
) -> Written:
    """Create the object; keep one that has the same rows or is marked as corrected; replace any other.

    The same rows are recognized by `digest`, which is stored in the object's metadata: with KMS the ETag is not a
    digest, and another version of the encoder may write the same rows as other bytes. A correction marks an object
    with the metadata `corrected`, in the request that changes it. `records`, the number of records of the segment, is
    stored too; an object with more records is kept unless it `may_shrink`. Raises TransientError if other writers
    change the object again and again, and the errors of boto3.
    """
    request: PutRequest = {
        "Bucket": bucket,
        "Key": key,
        "Body": body,
        "ContentType": content_type,
        "Metadata": {DIGEST: digest, RECORDS: str(records)},
    }
    for _ in range(_MAX_ATTEMPTS):
        if _put(s3, {**request, "IfNoneMatch": "*"}):
            return Written.CREATED
        found = head(s3, bucket, key)
        if found is None:
            continue
        metadata = found["Metadata"]
        if metadata.get(DIGEST) == digest:
            return Written.KEPT
        if CORRECTED in metadata:
            return Written.LEFT
        if not may_shrink and int(metadata.get(RECORDS, 0)) > records:
            return Written.LONGER
        if _put(s3, {**request, "IfMatch": found["ETag"]}):
            return Written.REPLACED
    raise TransientError(f"s3://{bucket}/{key} changed {_MAX_ATTEMPTS} times while it was being written")


def put_new(s3: S3Client, request: PutRequest) -> bool:
    """Create the object of a `put_object` request; return False if it exists already.

    Raises TransientError if another request is writing the key at this moment, and the errors of boto3.
    """
    for _ in range(_MAX_ATTEMPTS):
        if _put(s3, {**request, "IfNoneMatch": "*"}):
            return True
        if head(s3, request["Bucket"], request["Key"]) is not None:
            return False
    raise TransientError(
        f"s3://{request['Bucket']}/{request['Key']} was created and deleted {_MAX_ATTEMPTS} times while being written"
    )


def head(s3: S3Client, bucket: str, key: str) -> HeadObjectOutputTypeDef | None:
    """Return the response of HeadObject, None if there is no such object."""
    try:
        return s3.head_object(Bucket=bucket, Key=key)
    except Exception as error:
        if aws_error_code(error) in _MISSING:
            return None
        raise


def get(s3: S3Client, bucket: str, key: str) -> bytes | None:
    """Return the object's bytes, None if there is no such object."""
    try:
        body: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except Exception as error:
        if aws_error_code(error) in _MISSING:
            return None
        raise
    return body


def get_with_etag(s3: S3Client, bucket: str, key: str) -> tuple[bytes | None, str]:
    """Return the object's bytes and ETag (without quotes); None and an empty text if there is no such object."""
    try:
        found = s3.get_object(Bucket=bucket, Key=key)
        return found["Body"].read(), found["ETag"].strip('"')
    except Exception as error:
        if aws_error_code(error) in _MISSING:
            return None, ""
        raise


def keys(s3: S3Client, bucket: str, prefix: str, start_after: str = "") -> Iterator[str]:
    """Yield every key with a prefix that follows `start_after`, in S3's order (UTF-8 bytes)."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, StartAfter=start_after)
    for page in pages:
        for item in page.get("Contents", ()):
            yield item["Key"]


def etags(s3: S3Client, bucket: str, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield every key with a prefix and its object's ETag (with quotes, as in GetObject), in S3's order."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    for page in pages:
        for item in page.get("Contents", ()):
            yield item["Key"], item["ETag"]


def folders(s3: S3Client, bucket: str, prefix: str) -> Iterator[str]:
    """Yield the common prefixes one level below `prefix`, each ending with a slash."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
    for page in pages:
        for item in page.get("CommonPrefixes", ()):
            yield item["Prefix"]


def _put(s3: S3Client, request: PutRequest) -> bool:
    try:
        s3.put_object(**request)
    except Exception as error:
        # A put with If-Match fails with NoSuchKey if the object was deleted in the meantime.
        if is_conflict(error) or aws_error_code(error) in _MISSING:
            return False
        raise
    return True
