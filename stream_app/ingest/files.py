"""Reads Parquet, CSV and JSON-lines files in chunks of bounded size; CSV and JSON lines may be gzipped."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from stream_app.errors import ConfigError, Problem

# One row of a file by column name. JSON lines can have values of any type.
Row = dict[str, Any]

CHUNK_ROWS = 8_192  # rows
MAX_LINE = 1_048_576  # bytes; bounds the memory if the file does not consist of lines
FORMATS = (".parquet", ".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")
_HINT = f"use a file of type {', '.join(FORMATS)}, or a folder of such files"
_KEPT_TYPES = {"station": pa.string(), "parcel": pa.string(), "id": pa.string(), "wd": pa.string()}


def format_of(path: Path) -> str:
    """Return the file extension without ".gz". Raises ConfigError if it is not one of FORMATS."""
    name = path.name.lower()
    if not name.endswith(FORMATS):
        raise ConfigError([Problem(f"the format of {path.name} is not supported", _HINT)])
    return Path(name.removesuffix(".gz")).suffix


def files(path: Path) -> list[Path]:
    """Return the file itself, or the data files of a folder ordered by name. Raises ConfigError if no file exists."""
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.is_file() and p.name.lower().endswith(FORMATS))
        if not found:
            raise ConfigError([Problem(f"{path} contains no data file", _HINT)])
        return found
    if not path.is_file():
        raise ConfigError([Problem(f"{path} does not exist", _HINT)])
    format_of(path)
    return [path]


def tables(path: Path, numbers: frozenset[str]) -> Iterator[pa.RecordBatch]:
    """Read a Parquet or CSV file in chunks. Raises ConfigError if the file cannot be read.

    In CSV files, the columns in `numbers` are read as float64, and empty cells and NA are missing values.
    """
    with _readable(path):
        if format_of(path) == ".parquet":
            with pa.parquet.ParquetFile(path) as file:
                yield from file.iter_batches(batch_size=CHUNK_ROWS)
            return
        types = {**_KEPT_TYPES, **dict.fromkeys(numbers, pa.float64())}
        convert = pa.csv.ConvertOptions(column_types=types, strings_can_be_null=True)
        with pa.csv.open_csv(path, convert_options=convert) as reader:  # Decompresses .gz automatically.
            yield from reader


def lines(path: Path) -> Iterator[list[Row]]:
    """Read a file with one JSON object per line in chunks. Raises ConfigError naming an invalid line."""
    decode = msgspec.json.Decoder(Row).decode
    chunk: list[Row] = []
    with _readable(path), _opened(path) as file:
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                raise _line_error(path, number, f"is longer than {MAX_LINE} bytes")
            if not line.strip():
                continue
            try:
                chunk.append(decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise _line_error(path, number, f"is not a JSON object: {error}") from error
            if len(chunk) == CHUNK_ROWS:
                yield chunk
                chunk = []
    if chunk:
        yield chunk


def _opened(path: Path) -> BinaryIO:
    if path.name.lower().endswith(".gz"):
        return cast("BinaryIO", gzip.open(path, "rb"))
    return path.open("rb")


def _line_error(path: Path, number: int, what: str) -> ConfigError:
    return ConfigError([Problem(f"{path.name}: line {number} {what}", "write one JSON object per line")])


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, pa.ArrowException, UnicodeDecodeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError([Problem(f"{path} cannot be read: {reason}", _HINT)]) from error
