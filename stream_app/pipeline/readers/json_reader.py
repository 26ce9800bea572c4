"""Reads JSON records by an Avro schema, exactly: every number from its own text, every value by its own type."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from stream_app.model.record import Code
from stream_app.pipeline.readers.json_union import UnionReader
from stream_app.pipeline.values.avro_types import AvroField, AvroType
from stream_app.pipeline.values.defaults import NO_VALUE, absent_value
from stream_app.pipeline.values.scalars import scalar_for
from stream_app.pipeline.values.violation import ViolationError, json_kind

Read = Callable[[bytes, int | None], Any]
_ABSENT = msgspec.Raw()
_NULL = b"null"
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_entries = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _Plan(NamedTuple):
    """One field: where its value and its older names' are among the raw values, and what it is where absent."""

    name: str
    at: int
    older: Sequence[int]
    read: Read
    absent: Any
    may_be_null: bool


class RecordReader:
    """Reads the JSON form of a record type into its fields' values, in order.

    Fields that the schema does not know are passed over; of a name that stands twice the last counts; a field's own
    name goes before an older one. A `required` field may be absent or null, and is None then.
    """

    def __init__(
        self,
        fields: Sequence[AvroField],
        required: Iterable[str],
        reads: Sequence[Read],
        absent: Sequence[Any],
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

    def read(self, body: Any, arrived: int | None) -> list[Any]:
        """The fields' values. Raises ViolationError for a record that does not fit."""
        raws = msgspec.structs.astuple(_decoded(self._decode, body, "an object"))
        return [_field(plan, raws, arrived) for plan in self._plans]

    def read_object(self, raw: bytes, arrived: int | None) -> dict[str, Any]:
        """The same by name."""
        values = self.read(raw, arrived)
        return {plan.name: value for plan, value in zip(self._plans, values, strict=True)}


def _field(plan: _Plan, raws: Sequence[msgspec.Raw], arrived: int | None) -> Any:
    raw = raws[plan.at]
    if raw is _ABSENT:
        raw = next((raws[at] for at in plan.older if raws[at] is not _ABSENT), _ABSENT)
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


def _decoded(decode: Callable[[Any], Any], body: Any, expected: str) -> Any:
    try:
        return decode(body)
    except msgspec.ValidationError:
        raise ViolationError(expected, json_kind(bytes(body).lstrip())) from None
    except UnicodeDecodeError:
        raise ViolationError("names in UTF-8", "bytes that are not", Code.UNDECODABLE) from None
    except msgspec.DecodeError:
        raise ViolationError("JSON", "bytes that are not", Code.UNDECODABLE) from None


def record_reader(avro: AvroType, required: Iterable[str], columns: Iterable[bool]) -> RecordReader:
    """How the JSON form of a record is read; `columns` says which fields have a column of their own kind."""
    known: dict[int, Read] = {}
    flags = list(columns)
    reads = [_reader(f.type, known, column=flag) for f, flag in zip(avro.fields, flags, strict=True)]
    absent = [absent_value(field, column=flag) for field, flag in zip(avro.fields, flags, strict=True)]
    return RecordReader(avro.fields, required, reads, absent)


def _reader(avro: AvroType, known: dict[int, Read], *, column: bool, nullable: bool = False) -> Read:
    scalar = scalar_for(avro, column=column, nullable=nullable)
    if scalar is not None:
        return scalar.json
    if avro.type == "union":
        return _union(avro, known, column=column)
    if avro.items is not None:
        item = _reader(avro.items, known, column=False)
        return _array(item) if avro.type == "array" else _map(item)
    return _record(avro, known)


def _record(avro: AvroType, known: dict[int, Read]) -> Read:
    if id(avro) not in known:
        made: list[RecordReader] = []  # a type may contain itself
        known[id(avro)] = lambda raw, arrived: made[0].read_object(raw, arrived)
        reads = [_reader(field.type, known, column=False) for field in avro.fields]
        absent = [absent_value(field, column=False) for field in avro.fields]
        made.append(RecordReader(avro.fields, (), reads, absent))
    return known[id(avro)]


def _union(avro: AvroType, known: dict[int, Read], *, column: bool) -> Read:
    branches = [branch for branch in avro.branches if branch.type != "null"]
    reads = [_reader(branch, known, column=column, nullable=avro.nullable) for branch in branches]
    if len(branches) != 1:
        return UnionReader(avro, branches, reads).read
    read, nullable = reads[0], avro.nullable

    def one(raw: bytes, arrived: int | None) -> Any:
        return None if nullable and raw == _NULL else read(raw, arrived)

    return one


def _array(item: Read) -> Read:
    def read(raw: bytes, arrived: int | None) -> list[Any]:
        found = []
        for at, value in enumerate(_decoded(_items, raw, "an array")):
            try:
                found.append(item(bytes(value), arrived))
            except ViolationError as error:
                raise error.within(f"[{at}]") from None
        return found

    return read


def _map(item: Read) -> Read:
    def read(raw: bytes, arrived: int | None) -> dict[str, Any]:
        found = {}
        for at, (name, value) in enumerate(_decoded(_entries, raw, "an object").items()):
            try:
                found[name] = item(bytes(value), arrived)
            except ViolationError as error:  # a map's names are payload
                raise error.within(f"[entry {at}]") from None
        return found

    return read
