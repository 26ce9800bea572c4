"""The daemon's pipe: lines are read unchanged, and the buffer of a full pipe is enlarged."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from stream_app.consumer.protocol.line_reader import LineReader
from stream_app.consumer.protocol.pipe import WidePipe

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's pipes")
USUAL = 65_536


@pytest.fixture
def ends() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, USUAL)  # whatever this user's pipes have now
    yield reading, writing
    os.close(reading)


def size(pipe: int) -> int:
    return fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)


def read(pipe: int) -> list[bytes]:
    with open(pipe, "rb", buffering=0, closefd=False) as file:
        reader, lines = LineReader(WidePipe(file)), []
        while (line := reader.read()) is not None:
            lines.append(bytes(line))
    return lines


def write(pipe: int, lines: list[bytes]) -> None:
    with open(pipe, "wb", buffering=0) as file:
        for line in lines:
            left = memoryview(line)
            while left:
                left = left[file.write(left) :]


def test_long_lines_are_read_unchanged_and_enlarge_the_pipe(ends: tuple[int, int]) -> None:
    sent = [bytes([ord("a") + at]) * length + b"\n" for at, length in enumerate((5, 300_000, 1, 900_000))]
    writer = Thread(target=write, args=(ends[1], sent))
    writer.start()
    assert read(ends[0]) == sent
    writer.join()
    assert size(ends[0]) > USUAL


def test_short_lines_do_not_enlarge_the_pipe(ends: tuple[int, int]) -> None:
    sent = [b"tick\n"] * 100
    write(ends[1], sent)
    assert read(ends[0]) == sent
    assert size(ends[0]) == USUAL


def test_a_regular_file_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"x" * 200_000 + b"\nend\n")
    with path.open("rb", buffering=0) as file:
        assert [len(line) for line in read(file.fileno())] == [200_001, 4]
