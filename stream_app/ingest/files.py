"""Tables on disk, a bounded piece at a time: Parquet, CSV, JSON lines; the last two also gzipped."""

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

Row = dict[str, Any]

PIECE = 8_192  # rows
MAX_LINE = 1_048_576  # bytes; also keeps a file that is not lines at all out of the memory
FORMATS = (".parquet", ".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")
_HINT = f"give a file of {', '.join(FORMATS)}, or a folder of them"
_KEPT_TYPES = {"station": pa.string(), "parcel": pa.string(), "id": pa.string(), "wd": pa.string()}


def format_of(path: Path) -> str:
    """The ending, of FORMATS, without ".gz". Raises ConfigError for another ending."""
    name = path.name.lower()
    if not name.endswith(FORMATS):
        raise ConfigError([Problem(f"{path.name} is of no format known here", _HINT)])
    return Path(name.removesuffix(".gz")).suffix


def files(path: Path) -> list[Path]:
    """The file itself, or the tables of a folder by name. Raises ConfigError when there is none."""
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.is_file() and p.name.lower().endswith(FORMATS))
        if not found:
            raise ConfigError([Problem(f"{path} has no table in it", _HINT)])
        return found
    if not path.is_file():
        raise ConfigError([Problem(f"{path} is not there", _HINT)])
    format_of(path)
    return [path]


def tables(path: Path, numbers: frozenset[str]) -> Iterator[pa.RecordBatch]:
    """The pieces of a Parquet or CSV file. Columns in `numbers` are read as float64 from CSV, where an empty
    cell or NA is a missing value. Raises ConfigError when the file cannot be read.
    """
    with _readable(path):
        if format_of(path) == ".parquet":
            with pa.parquet.ParquetFile(path) as file:
                yield from file.iter_batches(batch_size=PIECE)
            return
        types = {**_KEPT_TYPES, **dict.fromkeys(numbers, pa.float64())}
        convert = pa.csv.ConvertOptions(column_types=types, strings_can_be_null=True)
        with pa.csv.open_csv(path, convert_options=convert) as reader:  # unpacks .gz by itself
            yield from reader


def lines(path: Path) -> Iterator[list[Row]]:
    """The pieces of a file of JSON lines, each line one object. Raises ConfigError naming the line."""
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    piece: list[Row] = []
    with _readable(path), _opened(path) as file:
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                raise _wrong_line(path, number, f"is longer than {MAX_LINE} bytes")
            if not line.strip():
                continue
            try:
                piece.append(decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise _wrong_line(path, number, f"is not a JSON object: {error}") from error
            if len(piece) == PIECE:
                yield piece
                piece = []
    if piece:
        yield piece


def _opened(path: Path) -> BinaryIO:
    if path.name.lower().endswith(".gz"):
        return cast("BinaryIO", gzip.open(path, "rb"))
    return path.open("rb")


def _wrong_line(path: Path, number: int, what: str) -> ConfigError:
    return ConfigError([Problem(f"{path.name}: line {number} {what}", "write one JSON object a line")])


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, pa.ArrowException, UnicodeDecodeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError([Problem(f"{path} cannot be read: {reason}", _HINT)]) from error
