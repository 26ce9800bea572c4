"""Reads and compares the outputs of the variants, which must be identical before anything is timed."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.bench.consumer.local_clients import dead_letters

_SCORES = ("score", "anomaly")
_OURS_ONLY = ("shard",)


@dataclass(frozen=True, slots=True)
class Output:
    """Stored rows and the error codes of dead letters, by sequence number."""

    stored: dict[str, dict[str, Any]]
    failed: dict[str, str]

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of stored rows, and of failed records by code."""
        return {"stored": len(self.stored), **dict(sorted(Counter(self.failed.values()).items()))}


def of_ours(folder: Path) -> Output:
    """Read Parquet files and dead letters. Raises AssertionError if a row was stored twice."""
    stored: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("events*.parquet")):
        table = pq.read_table(path)
        for name, kind in zip(table.column_names, table.schema.types, strict=True):
            if pa.types.is_timestamp(kind):
                at = table.column_names.index(name)
                table = table.set_column(at, name, table[name].cast(pa.timestamp("ms")).cast(pa.int64()))
        for row in table.to_pylist():
            assert row["sequence"] not in stored, row["sequence"]
            stored[row["sequence"]] = {k: v for k, v in row.items() if k not in _OURS_ONLY}
    return Output(stored, {entry["sequence"]: entry["code"] for entry in dead_letters(folder)})


def of_lines(folder: Path) -> Output:
    """Read the JSON lines written by the stock consumer and other stream processors."""
    stored = [json.loads(line) for line in (folder / "stored.jsonl").read_text().splitlines()]
    failed = [json.loads(line) for line in (folder / "failed.jsonl").read_text().splitlines()]
    return Output({row["sequence"]: row for row in stored}, {row["sequence"]: row["code"] for row in failed})


@dataclass(slots=True)
class Difference:
    """The differences between two outputs; false if there are none."""

    rows: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    columns: Counter[str] = field(default_factory=Counter)
    example: str = ""

    def __bool__(self) -> bool:
        return bool(self.rows or self.failed or self.columns)


def difference(one: Output, other: Output, *, scores: bool) -> Difference:
    """Compare rows, failures by code and every column, floats exactly; scores only if `scores`."""
    found = Difference(
        rows=sorted(one.stored.keys() ^ other.stored.keys()),
        failed=[
            s for s in sorted(one.failed.keys() | other.failed.keys()) if _code(one, s) != _code(other, s)
        ],
    )
    for sequence in one.stored.keys() & other.stored.keys():
        ours, theirs = one.stored[sequence], other.stored[sequence]
        for name in ours.keys() | theirs.keys():
            if name in _SCORES and not scores:
                continue
            if not _same(ours.get(name), theirs.get(name)):
                found.columns[name] += 1
                found.example = found.example or f"{sequence} {name}: {ours.get(name)} {theirs.get(name)}"
    return found


def _code(output: Output, sequence: str) -> str | None:
    return output.failed.get(sequence)


def _same(one: Any, other: Any) -> bool:
    missing = [value is None or (isinstance(value, float) and math.isnan(value)) for value in (one, other)]
    return all(missing) if any(missing) else bool(one == other)
