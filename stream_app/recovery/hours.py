"""Finds the hours of a date-partitioned store in a time range, without listing any others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from stream_app.aws.objects import folders

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# Folders of a year, a month, a day, an hour: `<prefix>2016/12/01/00/`.
_LEVELS = ("%Y", "%m", "%d", "%H")
_DIGITS = re.compile(r"\d{2,4}")
_EVER = datetime(1, 1, 1, tzinfo=UTC)
_NEVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def hours(
    s3: S3Client,
    bucket: str,
    prefix: str,
    since: datetime | None,
    until: datetime | None,
    *,
    newest_first: bool,
) -> Iterator[str]:
    """Yield the prefixes of the hours under `prefix` that overlap [since, until), in order.

    Both times are UTC. An hour that is the only one possible is yielded without a check that it exists; otherwise a
    level of folders is listed where more than one can overlap the range. Raises what boto3 raises.
    """
    first, last = since or _EVER, (until - timedelta(microseconds=1)) if until else _NEVER
    if first <= last:
        yield from _below(s3, bucket, prefix, (_parts(first), _parts(last)), (), newest_first)


def _below(
    s3: S3Client,
    bucket: str,
    prefix: str,
    ends: tuple[tuple[str, ...], tuple[str, ...]],
    path: tuple[str, ...],
    newest_first: bool,
) -> Iterator[str]:
    if len(path) == len(_LEVELS):
        yield f"{prefix}{'/'.join(path)}/"
        return
    first, last = ends[0][: len(path) + 1], ends[1][: len(path) + 1]
    if first == last:
        names = [first[-1]]
    else:
        here = prefix + "".join(f"{part}/" for part in path)
        found = (folder[len(here) : -1] for folder in folders(s3, bucket, here))
        names = [name for name in found if _DIGITS.fullmatch(name) and first <= (*path, name) <= last]
    for name in sorted(names, reverse=newest_first):
        yield from _below(s3, bucket, prefix, ends, (*path, name), newest_first)


def _parts(at: datetime) -> tuple[str, ...]:
    # strftime does not pad the year 1 with zeros.
    return f"{at.year:04d}", *(at.strftime(level) for level in _LEVELS[1:])
