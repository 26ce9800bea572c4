"""Log output to failing file descriptors: a full or closed pipe, no reader, a full disk."""

from __future__ import annotations

import fcntl
import io
import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, suppress
from pathlib import Path

import pytest
import structlog

from stream_app.daemon.log import json_lines
from stream_app.telemetry import log
from stream_app.telemetry.best_effort import BestEffortFile, text

CAPACITY = 4 * 4_096


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe that holds four pages."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, CAPACITY)
    yield reading, writing
    for fd in (reading, writing):
        with suppress(OSError):
            os.close(fd)


def test_lines_are_written_unchanged(pipe: tuple[int, int]) -> None:
    file = BestEffortFile(pipe[1])
    assert file.write(b"one\n") == 4
    assert file.write(b"two\n") == 4
    assert os.read(pipe[0], 100) == b"one\ntwo\n"
    assert file.lost == 0


@pytest.mark.parametrize("blocking", [True, False])
def test_a_blocked_reader_does_not_block_writes_and_lost_lines_are_counted(
    pipe: tuple[int, int], blocking: bool
) -> None:
    reading, writing = pipe
    os.set_blocking(writing, blocking)
    file, line = BestEffortFile(writing, timeout_ms=0), b"x" * 999 + b"\n"
    for _ in range(50):
        assert file.write(line) == 1_000
    assert file.lost >= 50 - CAPACITY // 1_000
    lost, first = file.lost, os.read(reading, 10 * CAPACITY)
    file.write(b"again\n")
    assert file.lost == lost
    rest = (first + os.read(reading, 10 * CAPACITY)).split(b"\n")
    assert rest[-3:-1] == [
        b'{"event": "log output was lost", "level": "warning", "writes": %d}' % lost,
        b"again",
    ]
    assert {len(part) for part in rest[:-4]} == {999}  # the last line may be truncated, but is terminated


def test_a_line_larger_than_the_pipe_is_truncated_and_the_next_line_is_complete(
    pipe: tuple[int, int],
) -> None:
    file = BestEffortFile(pipe[1], timeout_ms=0)
    file.write(b"y" * 3 * CAPACITY + b"\n")
    assert file.lost == 1
    first = os.read(pipe[0], 10 * CAPACITY)
    assert first == b"y" * CAPACITY
    file.write(b"next\n")
    notice = b'{"event": "log output was lost", "level": "warning", "writes": 1}'
    assert os.read(pipe[0], CAPACITY).split(b"\n") == [b"", notice, b"next", b""]
    file.write(b"after\n")
    assert os.read(pipe[0], CAPACITY) == b"after\n"


def full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def without_a_reader() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def closed() -> int:
    fd = without_a_reader()
    os.close(fd)
    return fd


@pytest.mark.parametrize("broken", [full_disk, without_a_reader, closed])
def test_writing_to_a_failing_descriptor_does_not_raise(
    broken: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = broken()  # type: ignore[operator]
    try:
        monkeypatch.setattr(sys, "stderr", text(fd))
        monkeypatch.setattr(sys, "stdout", text(fd))
        log.configure()
        log.get().info("event", value=1)
        print("a print", end="")
        print("\udcff")
        sys.stdout.flush()
        json_lines(BestEffortFile(fd))({"level": "INFO", "event": "x"})
    finally:
        structlog.reset_defaults()
        if broken is not closed:
            os.close(fd)


def test_lone_surrogates_are_escaped(pipe: tuple[int, int]) -> None:
    print("größe \udcff", file=text(pipe[1]))
    assert os.read(pipe[0], 100).decode() == "größe \\udcff\n"


def test_a_print_without_a_newline_is_not_mixed_with_a_log_line(pipe: tuple[int, int]) -> None:
    out, err = text(pipe[1]), text(pipe[1])
    print("begun", end="", file=out)
    print('{"event": "x"}', file=err)
    print(" ended", file=out)
    assert os.read(pipe[0], 100) == b'{"event": "x"}\nbegun ended\n'


# ---- The log itself


class Strange:
    def __repr__(self) -> str:
        raise RuntimeError("no name")


STRANGE = (Strange(), {1: 2, (3,): 4}, "\ud800", float("nan"), 10**5_000, b"\xff")


@pytest.mark.parametrize("at", range(len(STRANGE)))
def test_any_logged_value_produces_one_line(at: int) -> None:
    value = STRANGE[at]
    lines = io.StringIO()
    try:
        log.configure("INFO", lines)
        log.get().info("event", value=value)
        log.get().info("next")
        with redirect_stderr(None):
            log.configure()
            log.get().info("nowhere")
    finally:
        structlog.reset_defaults()
    logged = lines.getvalue().splitlines()
    assert len(logged) == 2
    assert '"event": "event"' in logged[0]


def test_a_failing_log_file_does_not_raise(tmp_path: Path) -> None:
    line = {"level": "INFO", "event": "x", "text": "\ud800", "number": 10**400, "what": object()}
    with (tmp_path / "log").open("wb") as file:
        on_line = json_lines(file)
    on_line(line)
    with Path("/dev/full").open("wb", buffering=0) as full:
        json_lines(full)(line)


def test_values_without_a_json_form_are_logged_as_text() -> None:
    out = io.BytesIO()
    json_lines(out)({"level": "INFO", "event": "x", "text": "\ud800", "what": {1, 2}})
    assert out.getvalue() == b'{"level": "INFO", "event": "x", "text": "\\ud800", "what": "{1, 2}"}\n'
