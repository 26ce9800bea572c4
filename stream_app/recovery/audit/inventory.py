"""Lists the objects in the bucket by the shard that they belong to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from stream_app.aws.objects import folders, keys
from stream_app.model.segment import token
from stream_app.recovery.store import failure_keys, parse_key
from stream_app.sinks.s3 import EVENTS, SEGMENTS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_NAME = re.compile(r"(.+)-\d+(?:\.\d+)?\.parquet")
# A segment is stored under the hour of its first record; its last record may have arrived much later.
_MARGIN = timedelta(days=1)
NO_SHARD = ""


@dataclass(slots=True)
class Files:
    """The keys of one shard's objects; `failures` with the position's token (`segment.token`)."""

    events: list[str] = field(default_factory=list)
    manifests: list[str] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)


def inventory(s3: S3Client, bucket: str, consumer: str, since: datetime | None) -> dict[str, Files]:
    """Return the keys by shard, those with a date from one day before `since` on.

    Event files whose names do not contain a shard are listed under NO_SHARD. Raises what boto3 raises.
    """
    start = since - _MARGIN if since else None
    found: dict[str, Files] = {}
    for key in _event_keys(s3, bucket, start):
        named = _NAME.fullmatch(key.rpartition("/")[2])
        found.setdefault(named[1] if named else NO_SHARD, Files()).events.append(key)
    prefix = f"{SEGMENTS}{consumer}/"
    for key in keys(s3, bucket, prefix):
        found.setdefault(key.removeprefix(prefix).rpartition("/")[0], Files()).manifests.append(key)
    for key in failure_keys(s3, bucket, consumer, start):
        parsed = parse_key(key)
        if parsed is not None:
            found.setdefault(parsed.position.shard, Files()).failures.append((key, token(parsed.position)))
    return found


def _event_keys(s3: S3Client, bucket: str, start: datetime | None) -> Iterator[str]:
    for event in folders(s3, bucket, EVENTS):
        # StartAfter compares text, and the folder names sort in the order of their dates.
        after = f"{event}date={start:%Y-%m-%d}/" if start else ""
        for key in keys(s3, bucket, event, after):
            if key.endswith(".parquet"):
                yield key
