"""Fingerprints of failures: equal for failures whose reasons differ only in quoted values."""

from __future__ import annotations

import hashlib
import re

from stream_app.source_lines import without_line

_LENGTH = 10
# Values, which differ from record to record, in the order of their removal. Names of fields, rules, event types and
# errors stay, also between quotes.
_VALUES = (
    re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?"),
    re.compile(r"(?<!\w)[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}(?!\w)", re.IGNORECASE),
    re.compile(r"(?<!\w)(['\"])(?![A-Za-z_][\w.-]{0,39}\1)(?:(?!\1).)*(?:\1|$)"),
    # Digits in a name are not a value: pm25 and pm10 are different fields.
    re.compile(r"(?<!\w)[-+]?\d+(?:\.\d+)*(?:e[-+]?\d+)?(?!\w)", re.IGNORECASE),
    re.compile(r"(?<!\w)(?=[0-9a-f]*\d)[0-9a-f]{8,}(?!\w)", re.IGNORECASE),
)
_SPACE = re.compile(r"\s+")


def pattern(reason: str) -> str:
    """Return the reason with its values (times, IDs, numbers, quoted texts) replaced with `*`.

    Quoted names stay. The source line of user code at the end of a reason is removed, because it changes with every
    edit of the file.
    """
    reason = without_line(reason)
    for value in _VALUES:
        reason = value.sub("*", reason)
    return _SPACE.sub(" ", reason).strip()


def fingerprint(stage: str, code: str, event: str | None, reason: str) -> str:
    """Return ten hex digits that depend on the stage, code, event type and `pattern` of a failure."""
    cause = "\0".join((stage, code, event or "", pattern(reason)))
    return hashlib.sha256(cause.encode("utf-8", "surrogatepass")).hexdigest()[:_LENGTH]
