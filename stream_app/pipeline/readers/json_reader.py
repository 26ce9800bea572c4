"""Reads JSON records against an Avro schema exactly: numbers from their digits, each value by its Avro type."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from stream_app.model.record import Code
from stream_app.pipeline.readers.json_union import UnionReader
from stream_app.pipeline.values.avro_types import AvroField, AvroType
from stream_app.pipeline.values.defaults import NO_VALUE, absent_value
from stream_app.pipeline.values.scalar import FieldValue
from stream_app.pipeline.values.scalars import scalar_for
from stream_app.pipeline.values.violation import ViolationError, json_kind

T = TypeVar("T")
Read = Callable[[bytes, int | None], object]
_ABSENT = msgspec.Raw()
_NULL = b"null"
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_entries = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _Plan(NamedTuple):
    """How to read one field.

    `at` and `aliases` are the indexes of its value and of the values under its aliases among the raw values; `absent`
    is its value if the record has none of them.
    """

    name: str
    at: int
    aliases: Sequence[int]
    read: Read
    absent: object
    may_be_null: bool


class RecordReader:
    """Reads the JSON form of a record type into the values of its fields, in order.

    Ignores fields that are not in the schema. The last of duplicate names wins, and a field's name takes precedence
    over its aliases. A `required` field that is absent or null becomes None: the caller rejects it.
    """

    def __init__(
        self,
        fields: Sequence[AvroField],
        required: Iterable[str],
        reads: Sequence[Read],
        absent: Sequence[object],
    ) -> None:
        own = {field.name for field in fields}
        names = [field.name for field in fields]
        names += sorted({alias for field in fields for alias in field.aliases} - own)
        places = {name: at for at, name in enumerate(names)}
        members = [
            (f"f{at}", msgspec.Raw, msgspec.field(default=_ABSENT, name=name))
            for at, name in enumerate(names)
        ]
        self._decode = msgspec.json.Decoder(msgspec.defstruct("Fields", members, gc=False)).decode
        self._plans = [
            _Plan(
                field.name,
                places[field.name],
                [places[alias] for alias in field.aliases if alias not in own],
                read,
                None if field.name in required else value,
                field.name in required,
            )
            for field, read, value in zip(fields, reads, absent, strict=True)
        ]

    def read(self, body: bytes, arrived: int | None) -> list[FieldValue]:
        """Return the values of the fields. Raises ViolationError if a value is not of its type."""
        raws = msgspec.structs.astuple(_decoded(self._decode, body, "an object"))
        return [_field(plan, raws, arrived) for plan in self._plans]

    def read_object(self, raw: bytes, arrived: int | None) -> dict[str, object]:
        """Return the values by field name."""
        values = self.read(raw, arrived)
        return {plan.name: value for plan, value in zip(self._plans, values, strict=True)}


def _field(plan: _Plan, raws: Sequence[msgspec.Raw], arrived: int | None) -> object:
    raw = raws[plan.at]
    if raw is _ABSENT:
        raw = next((raws[at] for at in plan.aliases if raws[at] is not _ABSENT), _ABSENT)
        if raw is _ABSENT:
            if plan.absent is NO_VALUE:
                raise ViolationError("a value", "none").within(f".{plan.name}")
            return plan.absent
    data = bytes(raw)
    if plan.may_be_null and data == _NULL:
        return None
    try:
        return plan.read(data, arrived)
    except ViolationError as error:
        raise error.within(f".{plan.name}") from None


def _decoded(decode: Callable[[bytes], T], body: bytes, expected: str) -> T:
    try:
        return decode(body)
    except msgspec.ValidationError:
        raise ViolationError(expected, json_kind(bytes(body).lstrip())) from None
    except UnicodeDecodeError:
        raise ViolationError("names in UTF-8", "invalid bytes", Code.UNDECODABLE) from None
    except msgspec.DecodeError:
        raise ViolationError("JSON", "malformed text", Code.UNDECODABLE) from None


def record_reader(avro: AvroType, required: Iterable[str], columns: Iterable[bool]) -> RecordReader:
    """Return the reader of a record type; `columns` tells which fields have a column of their own kind."""
    known: dict[int, Read] = {}
    flags = list(columns)
    reads = [_reader(f.type, known, column=flag) for f, flag in zip(avro.fields, flags, strict=True)]
    absent = [absent_value(field, column=flag) for field, flag in zip(avro.fields, flags, strict=True)]
    return RecordReader(avro.fields, required, reads, absent)


def _reader(avro: AvroType, known: dict[int, Read], *, column: bool, nullable: bool = False) -> Read:
    scalar = scalar_for(avro, column=column, nullable=nullable)
    if scalar is not None:
        return scalar.from_json
    if avro.type == "union":
        return _union(avro, known, column=column)
    if avro.items is not None:
        item = _reader(avro.items, known, column=False)
        return _array(item) if avro.type == "array" else _map(item)
    return _record(avro, known)


def _record(avro: AvroType, known: dict[int, Read]) -> Read:
    if id(avro) not in known:
        compiled: list[RecordReader] = []  # filled below: a record may contain itself
        known[id(avro)] = lambda raw, arrived: compiled[0].read_object(raw, arrived)
        reads = [_reader(field.type, known, column=False) for field in avro.fields]
        absent = [absent_value(field, column=False) for field in avro.fields]
        compiled.append(RecordReader(avro.fields, (), reads, absent))
    return known[id(avro)]


def _union(avro: AvroType, known: dict[int, Read], *, column: bool) -> Read:
    branches = [branch for branch in avro.branches if branch.type != "null"]
    reads = [_reader(branch, known, column=column, nullable=avro.nullable) for branch in branches]
    if len(branches) != 1:
        return UnionReader(avro, branches, reads).read
    read, nullable = reads[0], avro.nullable

    def read_or_none(raw: bytes, arrived: int | None) -> object:
        return None if nullable and raw == _NULL else read(raw, arrived)

    return read_or_none


def _array(item: Read) -> Read:
    def read(raw: bytes, arrived: int | None) -> list[object]:
        values = []
        for at, value in enumerate(_decoded(_items, raw, "an array")):
            try:
                values.append(item(bytes(value), arrived))
            except ViolationError as error:
                raise error.within(f"[{at}]") from None
        return values

    return read


def _map(item: Read) -> Read:
    def read(raw: bytes, arrived: int | None) -> dict[str, object]:
        values = {}
        for at, (name, value) in enumerate(_decoded(_entries, raw, "an object").items()):
            try:
                values[name] = item(bytes(value), arrived)
            except ViolationError as error:  # an index, because the keys of a map are payload data
                raise error.within(f"[entry {at}]") from None
        return values

    return read
