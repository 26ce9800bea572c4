"""Reads Avro's binary form of records, written by any version of a schema, as the current version says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

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
from stream_app.pipeline.values.violation import ViolationError

ReadRecord = Callable[[bytes, int | None], list[Any]]


class _Step(NamedTuple):
    """One field of the writer: its name, how it is read, and the reader's field that it is (-1: none)."""

    name: str
    read: Read
    to: int


def record_reader(
    writer: AvroType, reader: AvroType, required: Iterable[str], columns: Iterable[bool]
) -> ReadRecord:
    """How records of `writer` are read into the values of the fields of `reader`, in order.

    A `required` field may be null, or absent in the writer, and is None then. `columns` says which fields have a
    column of their own kind. Raises ConflictError where a logical type differs so that no conversion is right.
    """
    resolver, needed = _Resolver(), frozenset(required)
    steps, absent = resolver.plan(writer, reader, needed, list(columns))

    def read(body: bytes, arrived: int | None) -> list[Any]:
        cursor = Cursor(body, arrived)
        values = _fields(steps, absent, reader.fields, cursor)
        if cursor.at != len(body):
            raise ViolationError("the end of the record", f"{len(body) - cursor.at} more bytes")
        return values

    return read


def _fields(
    steps: Sequence[_Step], absent: Sequence[Any], fields: Sequence[AvroField], cursor: Cursor
) -> list[Any]:
    if NO_VALUE in absent:
        missing = fields[absent.index(NO_VALUE)].name
        raise ViolationError("a value", "none in the writer's schema").within(f".{missing}")
    values = list(absent)
    for name, read, to in steps:
        try:
            value = read(cursor)
        except ViolationError as error:
            raise error.within(f".{name if to < 0 else fields[to].name}") from None
        if to >= 0:
            values[to] = value
    return values


class _Resolver:
    """Pairs of types, each resolved once: a type may contain itself."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Read] = {}

    def plan(
        self, writer: AvroType, reader: AvroType, required: frozenset[str], columns: Sequence[bool]
    ) -> tuple[list[_Step], list[Any]]:
        """How each of the writer's fields is read, and what the reader's are that the writer lacks."""
        names = {field.name: at for at, field in enumerate(reader.fields)}
        written = {field.name for field in writer.fields}
        for at, field in enumerate(reader.fields):
            older = next((alias for alias in field.aliases if alias in written), None)
            if field.name not in written and older is not None:
                names.setdefault(older, at)
        steps = []
        for theirs in writer.fields:
            to = names.get(theirs.name, -1)
            if to < 0:
                steps.append(_Step(theirs.name, self._skip(theirs.type), to))
                continue
            ours = reader.fields[to]
            wanted = _or_null(ours.type) if ours.name in required else ours.type
            try:
                read = self.value(theirs.type, wanted, column=columns[to])
            except ConflictError as error:
                raise ConflictError(f"field {ours.name}: {error}") from None
            steps.append(_Step(theirs.name, read, to))
        read_anyway = {step.to for step in steps}
        absent = [
            None if field.name in required or at in read_anyway else absent_value(field, column=columns[at])
            for at, field in enumerate(reader.fields)
        ]
        return steps, absent

    def value(self, writer: AvroType, reader: AvroType, *, column: bool, nullable: bool = False) -> Read:
        """How one value is read; what Avro does not resolve is refused where it comes."""
        if writer.type == "union":
            branches = [self.value(b, reader, column=column, nullable=nullable) for b in writer.branches]
            said = str(writer)
            return lambda cursor: branches[cursor.index(len(branches), said)](cursor)
        try:
            if reader.type == "union":
                return self._branch(writer, reader, column)
            return self._resolved(writer, reader, column=column, nullable=nullable)
        except UnresolvableError:
            return unresolvable_reader(writer, reader)

    def _branch(self, writer: AvroType, reader: AvroType, column: bool) -> Read:
        """The branch of the reader that Avro chooses: of several the one that is most alike."""
        conflict: ConflictError | None = None
        for branch in sorted(reader.branches, key=lambda one: _unlike(writer, one)):
            try:
                return self._resolved(writer, branch, column=column, nullable=reader.nullable)
            except UnresolvableError:
                continue
            except ConflictError as error:
                conflict = conflict or error
        if conflict is not None:
            raise conflict
        raise UnresolvableError

    def _resolved(self, writer: AvroType, reader: AvroType, *, column: bool, nullable: bool) -> Read:
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
            made: list[Read] = []
            self._known[key] = lambda cursor: made[0](cursor)
            plan = self.plan(writer, reader, frozenset(), [False] * len(reader.fields))
            made.append(_nested(*plan, reader.fields))
        return self._known[key]

    def _skip(self, avro: AvroType) -> Read:
        """Reads past a value that the reader has no field for."""
        if avro.type == "union":
            branches, said = [self._skip(branch) for branch in avro.branches], str(avro)
            return lambda cursor: branches[cursor.index(len(branches), said)](cursor)
        if avro.items is not None:
            item = self._skip(avro.items)
            return _array(item) if avro.type == "array" else _map(item)
        if avro.type != "record":
            return Cursor.sized if avro.type == "string" else primitive_reader(avro)
        key = (id(avro), 0)
        if key not in self._known:
            made: list[Read] = []
            self._known[key] = lambda cursor: made[0](cursor)
            steps = [_Step(field.name, self._skip(field.type), -1) for field in avro.fields]
            made.append(_nested(steps, [], ()))
        return self._known[key]


def _or_null(avro: AvroType) -> AvroType:
    if avro.nullable:
        return avro
    return AvroType("union", branches=(AvroType("null"), *(avro.branches or (avro,))))


def _unlike(writer: AvroType, reader: AvroType) -> tuple[bool, bool, bool]:
    return (writer.type != reader.type, writer.name != reader.name, writer.logical != reader.logical)


def _nested(steps: Sequence[_Step], absent: Sequence[Any], fields: Sequence[AvroField]) -> Read:
    names = [field.name for field in fields]

    def read(cursor: Cursor) -> dict[str, Any]:
        cursor.enter()
        values = _fields(steps, absent, fields, cursor)
        cursor.leave()
        return dict(zip(names, values, strict=True))

    return read


def _array(item: Read) -> Read:
    def read(cursor: Cursor) -> list[Any]:
        found: list[Any] = []
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
    def read(cursor: Cursor) -> dict[str, Any]:
        found: dict[str, Any] = {}
        cursor.enter()
        for at in cursor.blocks():
            try:
                name = cursor.string()
                found[name] = item(cursor)
            except ViolationError as error:  # a map's names are payload
                raise error.within(f"[entry {at}]") from None
        cursor.leave()
        return found

    return read
