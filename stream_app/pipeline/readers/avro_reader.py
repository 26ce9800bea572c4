"""Reads records in Avro's binary encoding, written with any version of a schema, as the current version."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from stream_app.pipeline.readers.avro_bytes import Cursor
from stream_app.pipeline.readers.avro_conversion import (
    ConflictError,
    Read,
    UnresolvableError,
    primitive_reader,
    scalar_reader,
    unresolvable_reader,
)
from stream_app.pipeline.values.avro_types import AvroField, AvroType
from stream_app.pipeline.values.defaults import NO_VALUE, absent_value
from stream_app.pipeline.values.scalar import FieldValue
from stream_app.pipeline.values.violation import ViolationError

ReadRecord = Callable[[bytes, int | None], list[FieldValue]]


class _Step(NamedTuple):
    """One field of the writer: its name, its reader, and the index of the reader's field (-1: none, skip it)."""

    name: str
    read: Read
    target: int


def record_reader(
    writer: AvroType, reader: AvroType, required: Iterable[str], columns: Iterable[bool]
) -> ReadRecord:
    """Return the function that reads records of type `writer` into the values of the fields of `reader`, in order.

    A `required` field that is null, or that the writer's schema lacks, becomes None: the caller rejects it. `columns`
    tells which fields have a column of their own kind. Raises ConflictError if logical types have no conversion.
    """
    steps, absent = _Resolver().plan(writer, reader, frozenset(required), list(columns))

    def read(body: bytes, arrived: int | None) -> list[FieldValue]:
        cursor = Cursor(body, arrived)
        values = _fields(steps, absent, reader.fields, cursor)
        if cursor.at != len(body):
            raise ViolationError("the end of the record", f"{len(body) - cursor.at} more bytes")
        return values

    return read


def _fields(
    steps: Sequence[_Step], absent: Sequence[object], fields: Sequence[AvroField], cursor: Cursor
) -> list[object]:
    if NO_VALUE in absent:
        missing = fields[absent.index(NO_VALUE)].name
        raise ViolationError("a value", "none in the writer's schema").within(f".{missing}")
    values = list(absent)
    for name, read, target in steps:
        try:
            value = read(cursor)
        except ViolationError as error:
            raise error.within(f".{name if target < 0 else fields[target].name}") from None
        if target >= 0:
            values[target] = value
    return values


class _Resolver:
    """Resolves pairs of writer and reader types, each pair of records once: a record may contain itself."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Read] = {}

    def plan(
        self, writer: AvroType, reader: AvroType, required: frozenset[str], columns: Sequence[bool]
    ) -> tuple[list[_Step], list[object]]:
        """Return a step for each of the writer's fields, and the absent values of the reader's other fields."""
        names = {field.name: at for at, field in enumerate(reader.fields)}
        written = {field.name for field in writer.fields}
        for at, field in enumerate(reader.fields):
            former = next((alias for alias in field.aliases if alias in written), None)
            if field.name not in written and former is not None:
                names.setdefault(former, at)
        steps = []
        for theirs in writer.fields:
            target = names.get(theirs.name, -1)
            if target < 0:
                steps.append(_Step(theirs.name, self._skip(theirs.type), target))
                continue
            ours = reader.fields[target]
            expected = _nullable(ours.type) if ours.name in required else ours.type
            try:
                read = self.value(theirs.type, expected, column=columns[target])
            except ConflictError as error:
                raise ConflictError(f"field {ours.name}: {error}") from None
            steps.append(_Step(theirs.name, read, target))
        present = {step.target for step in steps}
        absent = [
            None if field.name in required or at in present else absent_value(field, column=columns[at])
            for at, field in enumerate(reader.fields)
        ]
        return steps, absent

    def value(self, writer: AvroType, reader: AvroType, *, column: bool, nullable: bool = False) -> Read:
        """Return the function that reads one value; it rejects values that schema resolution cannot convert."""
        if writer.type == "union":
            branches = [self.value(b, reader, column=column, nullable=nullable) for b in writer.branches]
            expected = str(writer)
            return lambda cursor: branches[cursor.index(len(branches), expected)](cursor)
        try:
            if reader.type == "union":
                return self._branch(writer, reader, column)
            return self._resolve(writer, reader, column=column, nullable=nullable)
        except UnresolvableError:
            return unresolvable_reader(writer, reader)

    def _branch(self, writer: AvroType, reader: AvroType, column: bool) -> Read:
        """Resolve against the branch of the reader's union that Avro chooses, preferring the most similar branch."""
        conflict: ConflictError | None = None
        for branch in sorted(reader.branches, key=lambda branch: _mismatch(writer, branch)):
            try:
                return self._resolve(writer, branch, column=column, nullable=reader.nullable)
            except UnresolvableError:
                continue
            except ConflictError as error:
                conflict = conflict or error
        if conflict is not None:
            raise conflict
        raise UnresolvableError

    def _resolve(self, writer: AvroType, reader: AvroType, *, column: bool, nullable: bool) -> Read:
        if writer.items is not None and reader.items is not None and writer.type == reader.type:
            item = self.value(writer.items, reader.items, column=False)
            return _array(item) if writer.type == "array" else _map(item)
        if writer.type == reader.type == "record":
            return self._record(writer, reader)
        if writer.items is not None or writer.type == "record":
            raise UnresolvableError
        return scalar_reader(writer, reader, column=column, nullable=nullable)

    def _record(self, writer: AvroType, reader: AvroType) -> Read:
        key = (id(writer), id(reader))
        if key not in self._known:
            resolved: list[Read] = []
            self._known[key] = lambda cursor: resolved[0](cursor)
            plan = self.plan(writer, reader, frozenset(), [False] * len(reader.fields))
            resolved.append(_nested(*plan, reader.fields))
        return self._known[key]

    def _skip(self, avro: AvroType) -> Read:
        """Return the function that skips a value for which the reader has no field."""
        if avro.type == "union":
            branches, expected = [self._skip(branch) for branch in avro.branches], str(avro)
            return lambda cursor: branches[cursor.index(len(branches), expected)](cursor)
        if avro.items is not None:
            item = self._skip(avro.items)
            return _array(item) if avro.type == "array" else _map(item)
        if avro.type != "record":
            return Cursor.sized if avro.type == "string" else primitive_reader(avro)
        key = (id(avro), 0)
        if key not in self._known:
            resolved: list[Read] = []
            self._known[key] = lambda cursor: resolved[0](cursor)
            steps = [_Step(field.name, self._skip(field.type), -1) for field in avro.fields]
            resolved.append(_nested(steps, [], ()))
        return self._known[key]


def _nullable(avro: AvroType) -> AvroType:
    if avro.nullable:
        return avro
    return AvroType("union", branches=(AvroType("null"), *(avro.branches or (avro,))))


def _mismatch(writer: AvroType, reader: AvroType) -> tuple[bool, bool, bool]:
    """Sort key: branches of the same type, name and logical type come first."""
    return (writer.type != reader.type, writer.name != reader.name, writer.logical != reader.logical)


def _nested(steps: Sequence[_Step], absent: Sequence[object], fields: Sequence[AvroField]) -> Read:
    names = [field.name for field in fields]

    def read(cursor: Cursor) -> dict[str, object]:
        cursor.enter()
        values = _fields(steps, absent, fields, cursor)
        cursor.leave()
        return dict(zip(names, values, strict=True))

    return read


def _array(item: Read) -> Read:
    def read(cursor: Cursor) -> list[object]:
        found: list[object] = []
        cursor.enter()
        for at in cursor.blocks():
            try:
                found.append(item(cursor))
            except ViolationError as error:
                raise error.within(f"[{at}]") from None
        cursor.leave()
        return found

    return read


def _map(item: Read) -> Read:
    def read(cursor: Cursor) -> dict[str, object]:
        found: dict[str, object] = {}
        cursor.enter()
        for at in cursor.blocks():
            try:
                name = cursor.string()
                found[name] = item(cursor)
            except ViolationError as error:  # an index, because the keys of a map are payload data
                raise error.within(f"[entry {at}]") from None
        cursor.leave()
        return found

    return read
