"""One name for one cause: failures that differ only in the values that their reasons quote have the same."""

from __future__ import annotations

import hashlib
import re

from stream_app.source_lines import without_line

_LENGTH = 10
# Values, which differ from record to record, in the order in which they are taken out. Names of fields, rules, event
# types and errors stay, also between quotes.
_VALUES = (
    re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?"),
    re.compile(r"(?<!\w)[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}(?!\w)", re.IGNORECASE),
    re.compile(r"(?<!\w)(['\"])(?![A-Za-z_][\w.-]{0,39}\1)(?:(?!\1).)*(?:\1|$)"),
    # Not the digits of a name: pm25 and pm10 are two fields.
    re.compile(r"(?<!\w)[-+]?\d+(?:\.\d+)*(?:e[-+]?\d+)?(?!\w)", re.IGNORECASE),
    re.compile(r"(?<!\w)(?=[0-9a-f]*\d)[0-9a-f]{8,}(?!\w)", re.IGNORECASE),
)
_SPACE = re.compile(r"\s+")


def pattern(reason: str) -> str:
    """A reason without values: times, ids, numbers and quoted texts that are no names stand as `*`.

    The line of a user's code with which a reason ends is left out: it moves with every change of the file.
    """
    reason = without_line(reason)
    for value in _VALUES:
        reason = value.sub("*", reason)
    return _SPACE.sub(" ", reason).strip()


def fingerprint(stage: str, code: str, event: str | None, reason: str) -> str:
    """Ten hex digits that failures of the same cause share: the same stage, code, event type and `pattern`."""
    cause = "\0".join((stage, code, event or "", pattern(reason)))
    return hashlib.sha256(cause.encode("utf-8", "surrogatepass")).hexdigest()[:_LENGTH]
