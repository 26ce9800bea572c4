"""What most JSON records are, as types that decode and check all of a record in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Annotated, Any

import msgspec

from stream_app.model.records import Payloads
from stream_app.pipeline.readers.fast_types import fast_default, fast_type
from stream_app.pipeline.readers.payload_checks import scan_payloads
from stream_app.pipeline.values.schema import Field, Schema

# No value is of it: a member that has it must be absent. Avro's names are ASCII, so none begins as this one's does.
_NOTHING = Annotated[int, msgspec.Meta(ge=1, le=0)]
_MARKS = frozenset({"event", "detail-type"})
# Where not all can be read at once, so many are tried together: few are held up by an unusual one among them.
_SOME = 32
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_ENVELOPE = b'"detail-type"'

detail_of = attrgetter("detail")
id_of = attrgetter("id")


class FastPath:
    """Reads records of these events (name, schema, required fields, id's field): envelopes, or JSON without one.

    It takes a record only where `decode` and `conform` would take it with the same fields: every required field is
    there, none goes by an older name. What it refuses may be right all the same, and is for them to read.
    """

    def __init__(self, events: Iterable[tuple[str, Schema, Sequence[str], str]]) -> None:
        envelopes: list[type[msgspec.Struct]] = []
        plain: list[type[msgspec.Struct]] = []
        for name, schema, required, identity in events:
            members = _members(schema, required, identity)
            if not members:
                continue
            detail = _struct("Detail", members)
            wrapped = [("detail", detail), ("id", str | None, None), ("event", str | None, None)]
            envelopes.append(_struct("Envelope", wrapped, tag_field="detail-type", tag=name))
            if not _MARKS & {member[0] for member in members}:
                apart = ("ø", _NOTHING, msgspec.field(default=0, name="detail-type"))
                plain.append(_struct("Plain", [*members, apart], tag_field="event", tag=name))
        self._envelopes, self._plain = _decoder(envelopes, "detail-type"), _decoder(plain, "event")
        self.events = {kind: str(kind.__struct_config__.tag) for kind in (*envelopes, *plain)}
        self.enveloped = frozenset(envelopes)

    def read(self, payloads: Payloads, max_bytes: int) -> list[Any]:
        """Of each payload a Struct of one of `events`, its bytes where it is not of a usual form or beyond the limit.

        An envelope (`enveloped`) has `detail` and `id`; the others have an event's fields themselves. Payloads are
        expected to be as the first is, enveloped or not. Bytes that `payload_checks` refuses stay bytes.
        """
        checked = scan_payloads(payloads)
        decoder = self._envelopes if len(payloads) and _ENVELOPE in payloads.payload(0) else self._plain
        if decoder is None:
            return list(payloads.each())
        found = _all_at_once(decoder, payloads, max_bytes, checked.line_breaks)
        if found is None:
            found = _by_parts(decoder, payloads, max_bytes)
        for row in checked.refused:
            found[row] = payloads.payload(row)
        return found


def _by_parts(decoder: msgspec.json.Decoder[Any], payloads: Payloads, max_bytes: int) -> list[Any]:
    """What each payload is, where not all are of the form. Where many were not, the next are taken one by one."""
    found: list[Any] = list(payloads.each())
    many = False
    for start in range(0, len(found), _SOME):
        stop = min(start + _SOME, len(found))
        part = None if many else _all_at_once(decoder, payloads.part(start, stop), max_bytes)
        if part is None:
            part = _one_by_one(decoder, found[start:stop], max_bytes)
            many = list(map(type, part)).count(bytes) > _SOME // 4
        found[start:stop] = part
    return found


def _all_at_once(
    decoder: msgspec.json.Decoder[Any], payloads: Payloads, max_bytes: int, line_breaks: int | None = None
) -> list[Any] | None:
    """What all payloads are, None where one of them is not of the form, or is too large.

    Each is a line from brace to brace. No value goes over a line's end: what follows a closing brace is no opening
    one, and a line break in a string is no JSON. So as many values as lines are one of each.
    """
    lines = payloads.lines(line_breaks) if payloads.lengths().max(initial=0) <= max_bytes else None
    if lines is None:
        return None
    try:
        found: list[Any] = decoder.decode_lines(lines)
    except _UNREADABLE:
        return None
    return found if len(found) == len(payloads) else None


def _one_by_one(decoder: msgspec.json.Decoder[Any], data: Sequence[bytes], max_bytes: int) -> list[Any]:
    found: list[Any] = []
    left = iter([one if len(one) <= max_bytes else b"" for one in data])
    while len(found) < len(data):
        try:
            found.extend(map(decoder.decode, left))
        except _UNREADABLE:  # those before it are in `found`
            found.append(data[len(found)])
    return found


def _members(schema: Schema, required: Sequence[str], identity: str) -> list[tuple[Any, ...]]:
    """Fields in order, then older names, which must be absent; nothing for a schema that wants more care."""
    names = {field.name for field in schema.fields}
    older = {alias for field in schema.fields for alias in field.aliases}
    kinds = [
        fast_type(field, required=field.name in required, identity=field.name == identity)
        for field in schema.fields
    ]
    if names & older or None in kinds:
        return []
    absent = [
        (f"ø{at}", _NOTHING, msgspec.field(default=0, name=name)) for at, name in enumerate(sorted(older))
    ]
    members = [_member(field, kind, required) for field, kind in zip(schema.fields, kinds, strict=True)]
    return [*members, *absent]


def _member(field: Field, kind: Any, required: Sequence[str]) -> tuple[Any, ...]:
    optional = field.name not in required and (field.has_default or field.nullable)
    return (field.name, kind, fast_default(field)) if optional else (field.name, kind)


def _struct(name: str, members: Sequence[tuple[Any, ...]], **options: Any) -> type[msgspec.Struct]:
    return msgspec.defstruct(name, members, kw_only=True, gc=False, **options)


def _decoder(kinds: Sequence[type[msgspec.Struct]], tag_field: str) -> msgspec.json.Decoder[Any] | None:
    """A decoder of one of the types, by their tags. msgspec requires a tag only where there are several types."""
    if not kinds:
        return None
    union: Any = _struct("Never", [("never", _NOTHING)], tag_field=tag_field, tag="")
    for kind in kinds:
        union = union | kind
    return msgspec.json.Decoder(union)
