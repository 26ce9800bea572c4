"""Which objects in the bucket speak of which shard."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from stream_app.aws.objects import folders, keys
from stream_app.model.segment import token
from stream_app.recovery.store import failure_keys, parse_key
from stream_app.sinks.s3 import EVENTS, SEGMENTS

_NAME = re.compile(r"(.+)-\d+(?:\.\d+)?\.parquet")
# A segment lies in the folder of its first record; its last one may have come much later.
_MARGIN = timedelta(days=1)
NO_SHARD = ""


@dataclass(slots=True)
class Files:
    """The keys that speak of one shard; `failures` with the token of the position (`segment.token`)."""

    events: list[str] = field(default_factory=list)
    manifests: list[str] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)


def inventory(s3: Any, bucket: str, consumer: str, since: datetime | None) -> dict[str, Files]:
    """The keys by shard; of the dated ones those from a day before `since` on, or all of them.

    Event files whose name does not tell a shard stand under NO_SHARD. Raises what boto3 raises.
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


def _event_keys(s3: Any, bucket: str, start: datetime | None) -> Iterator[str]:
    for event in folders(s3, bucket, EVENTS):
        # StartAfter compares as text, and these names sort as their dates do.
        after = f"{event}date={start:%Y-%m-%d}/" if start else ""
        for key in keys(s3, bucket, event, after):
            if key.endswith(".parquet"):
                yield key
