"""The fast path for JSON records: msgspec types that decode and validate a whole record in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Annotated, Any

import msgspec

from stream_app.model.records import Payloads
from stream_app.pipeline.readers.fast_types import MsgspecType, fast_default, fast_type
from stream_app.pipeline.readers.payload_checks import scan_payloads
from stream_app.pipeline.values.schema import Field, Schema

# A type without values: a member of this type must be absent. The names of such members begin with "ø", so that they
# differ from all Avro names, which are ASCII.
_NOTHING = Annotated[int, msgspec.Meta(ge=1, le=0)]
_EVENT_TYPE_MEMBERS = frozenset({"event", "detail-type"})
# When the payloads cannot be decoded all at once, they are tried in groups of this size, so that a payload that is
# not of the common form delays few others.
_GROUP = 32
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_ENVELOPE = b'"detail-type"'

detail_of = attrgetter("detail")
id_of = attrgetter("id")


Decoded = Any
"""A Struct of a type made at run time, whose members are the fields of an event; or the bytes of a payload."""
Decoder = msgspec.json.Decoder[Decoded]
Member = tuple[Any, ...]
"""A member of `msgspec.defstruct`: (name, type) or (name, type, default)."""


class FastPath:
    """Decodes JSON records of the given events (name, schema, required fields, id field), in an envelope or without.

    Accepts a record only if `decode` and `schema_resolution` would accept it with the same values: every required
    field is present, and no field goes by an alias. Other records may be valid and are left for them to read.
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
            if not _EVENT_TYPE_MEMBERS & {member[0] for member in members}:
                apart = ("ø", _NOTHING, msgspec.field(default=0, name="detail-type"))
                plain.append(_struct("Plain", [*members, apart], tag_field="event", tag=name))
        self._envelopes, self._plain = _decoder(envelopes, "detail-type"), _decoder(plain, "event")
        self.events = {kind: str(kind.__struct_config__.tag) for kind in (*envelopes, *plain)}
        self.enveloped = frozenset(envelopes)

    def read(self, payloads: Payloads, max_bytes: int) -> list[Decoded]:
        """Decode each payload into a Struct of one of `events`; return its bytes if that fails.

        An envelope (`enveloped`) has the members `detail` and `id`, other Structs the fields of the event. Expects
        all payloads to be enveloped if the first one is. Payloads larger than `max_bytes`, and those that
        `payload_checks` rejects, remain bytes.
        """
        checked = scan_payloads(payloads)
        decoder = self._envelopes if len(payloads) and _ENVELOPE in payloads.payload(0) else self._plain
        if decoder is None:
            return list(payloads.each())
        found = _all_at_once(decoder, payloads, max_bytes, checked.line_breaks)
        if found is None:
            found = _by_parts(decoder, payloads, max_bytes)
        for row in checked.rejected:
            found[row] = payloads.payload(row)
        return found


def _by_parts(decoder: Decoder, payloads: Payloads, max_bytes: int) -> list[Decoded]:
    """Decode payloads in groups; after a group in which many failed, decode the rest one by one."""
    found: list[Decoded] = list(payloads.each())
    many = False
    for start in range(0, len(found), _GROUP):
        stop = min(start + _GROUP, len(found))
        part = None if many else _all_at_once(decoder, payloads.part(start, stop), max_bytes)
        if part is None:
            part = _one_by_one(decoder, found[start:stop], max_bytes)
            many = list(map(type, part)).count(bytes) > _GROUP // 4
        found[start:stop] = part
    return found


def _all_at_once(
    decoder: Decoder, payloads: Payloads, max_bytes: int, line_breaks: int | None = None
) -> list[Decoded] | None:
    """Decode all payloads in one call; return None if one of them is not of the form, or is too large.

    Each payload is a line that begins with an opening brace and ends with a closing one. A value cannot span lines:
    JSON allows neither `}` followed by `{` nor a line break in a string. So if there are as many values as lines,
    each line is one value.
    """
    lines = payloads.lines(line_breaks) if payloads.lengths().max(initial=0) <= max_bytes else None
    if lines is None:
        return None
    try:
        found: list[Decoded] = decoder.decode_lines(lines)
    except _UNREADABLE:
        return None
    return found if len(found) == len(payloads) else None


def _one_by_one(decoder: Decoder, data: Sequence[bytes], max_bytes: int) -> list[Decoded]:
    found: list[Decoded] = []
    left = iter([one if len(one) <= max_bytes else b"" for one in data])
    while len(found) < len(data):
        try:
            found.extend(map(decoder.decode, left))
        except _UNREADABLE:  # `found` has the payloads before this one
            found.append(data[len(found)])
    return found


def _members(schema: Schema, required: Sequence[str], identity: str) -> list[Member]:
    """Return the fields in order, then the aliases, which must be absent; nothing if a field has no fast type."""
    names = {field.name for field in schema.fields}
    aliases = {alias for field in schema.fields for alias in field.aliases}
    kinds = [
        fast_type(field, required=field.name in required, identity=field.name == identity)
        for field in schema.fields
    ]
    if names & aliases or None in kinds:
        return []
    absent = [
        (f"ø{at}", _NOTHING, msgspec.field(default=0, name=name)) for at, name in enumerate(sorted(aliases))
    ]
    members = [_member(field, kind, required) for field, kind in zip(schema.fields, kinds, strict=True)]
    return [*members, *absent]


def _member(field: Field, kind: MsgspecType, required: Sequence[str]) -> Member:
    optional = field.name not in required and (field.has_default or field.nullable)
    return (field.name, kind, fast_default(field)) if optional else (field.name, kind)


def _struct(
    name: str, members: Sequence[Member], *, tag_field: str | None = None, tag: str | None = None
) -> type[msgspec.Struct]:
    return msgspec.defstruct(name, members, kw_only=True, gc=False, tag_field=tag_field, tag=tag)


def _decoder(kinds: Sequence[type[msgspec.Struct]], tag_field: str) -> Decoder | None:
    """Return a decoder of a union of the types. msgspec requires the tag only in a union, so one is always made."""
    if not kinds:
        return None
    union: MsgspecType = _struct("Never", [("never", _NOTHING)], tag_field=tag_field, tag="")
    for kind in kinds:
        union = union | kind
    return msgspec.json.Decoder(union)
