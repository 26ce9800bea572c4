"""Objects on S3, written so that neither a second run nor a late worker undoes anything (DESIGN 4, rule 6)."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from stream_app.errors import TransientError, aws_error_code, is_conflict

DIGEST = "rows-digest"
CORRECTED = "corrected"
RECORDS = "records"
_TRIES = 5
_GONE = frozenset({"404", "NoSuchKey", "NotFound"})


class Written(StrEnum):
    """What a conditional write did."""

    CREATED = "created"
    KEPT = "kept"
    LEFT = "left as corrected"
    REPLACED = "replaced"
    LONGER = "left as longer"


def put_exact(
    s3: Any,
    *,
    bucket: str,
    key: str,
    body: bytes,
    digest: str,
    content_type: str,
    records: int,
    may_shrink: bool,
) -> Written:
    """Create the object; leave one that holds the same rows or is marked corrected; replace any other.

    The same rows are known by `digest`, which is kept in the object's metadata: an ETag says nothing under
    KMS, and another version of the encoder may write the same rows as other bytes. A correction marks an
    object with the metadata `corrected`, in the same put that changes it. `records` is how many records the
    object is about, kept there too; one about more of them is left unless it `may_shrink`. Raises
    TransientError when others keep getting in between, and what boto3 raises.
    """
    request = {
        "Bucket": bucket,
        "Key": key,
        "Body": body,
        "ContentType": content_type,
        "Metadata": {DIGEST: digest, RECORDS: str(records)},
    }
    for _ in range(_TRIES):
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
    raise TransientError(f"s3://{bucket}/{key} changed {_TRIES} times while it was being written")


def put_new(s3: Any, request: dict[str, Any]) -> bool:
    """Create the object that `request` (of put_object) describes; False when there is one already.

    Raises TransientError when another request holds the key at this moment, and what boto3 raises.
    """
    for _ in range(_TRIES):
        if _put(s3, {**request, "IfNoneMatch": "*"}):
            return True
        if head(s3, request["Bucket"], request["Key"]) is not None:
            return False
    raise TransientError(f"s3://{request['Bucket']}/{request['Key']} comes and goes")


def head(s3: Any, bucket: str, key: str) -> dict[str, Any] | None:
    """The object's headers as boto3 gives them, None when there is no such object."""
    try:
        found: dict[str, Any] = s3.head_object(Bucket=bucket, Key=key)
    except Exception as error:
        if aws_error_code(error) in _GONE:
            return None
        raise
    return found


def get(s3: Any, bucket: str, key: str) -> bytes | None:
    """The object's bytes, None when there is no such object."""
    try:
        body: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except Exception as error:
        if aws_error_code(error) in _GONE:
            return None
        raise
    return body


def get_with_etag(s3: Any, bucket: str, key: str) -> tuple[bytes | None, str]:
    """The object's bytes and ETag (without quotes); None and nothing when there is no such object."""
    try:
        found = s3.get_object(Bucket=bucket, Key=key)
        return found["Body"].read(), found["ETag"].strip('"')
    except Exception as error:
        if aws_error_code(error) in _GONE:
            return None, ""
        raise


def keys(s3: Any, bucket: str, prefix: str, start_after: str = "") -> Iterator[str]:
    """Every key under a prefix, in S3's order (UTF-8 bytes), those after `start_after` only."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, StartAfter=start_after)
    for page in pages:
        for item in page.get("Contents", ()):
            yield item["Key"]


def etags(s3: Any, bucket: str, prefix: str) -> Iterator[tuple[str, str]]:
    """Every key under a prefix with its object's ETag, as GetObject gives it, in S3's order."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    for page in pages:
        for item in page.get("Contents", ()):
            yield item["Key"], item["ETag"]


def folders(s3: Any, bucket: str, prefix: str) -> Iterator[str]:
    """The prefixes one level below `prefix`, each ending with a slash."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
    for page in pages:
        for item in page.get("CommonPrefixes", ()):
            yield item["Prefix"]


def _put(s3: Any, request: dict[str, Any]) -> bool:
    try:
        s3.put_object(**request)
    except Exception as error:
        # An If-Match put answers "no such key" when the object was deleted on the way.
        if is_conflict(error) or aws_error_code(error) in _GONE:
            return False
        raise
    return True
