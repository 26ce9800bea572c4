"""Run a function in a fork that may crash, and return its reports and how it ended.

The fork shares this process's memory copy-on-write, so the function sees all of it and changes nothing. The kernel
ends the fork when its parent ends (Linux), and kills it first when memory runs out.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from stream_app.processes.process_limits import Limit, Waiter, Watch

__all__ = ["ForkResult", "Limit", "Report", "StackFrame", "Work", "run"]
Report = Callable[[str], None]
"""Sends a report of one line of text to the parent."""
Work = Callable[[Report], None]

_PR_SET_PDEATHSIG = 1
_MOST_LIKELY_KILLED = "1000"  # oom_score_adj
_TOLD, _RAISED, _FINISHED = "t", "r", "f"
_LONGEST_ERROR = 200
_DUMP_SECONDS = 2.0  # the time for the fork to write its stack after SIGABRT
_FRAME = re.compile(r'^  File "(.+)", line (\d+) in (.+)$', re.MULTILINE)


class StackFrame(NamedTuple):
    """A Python stack frame: file path, line and function."""

    path: str
    line: int
    function: str


class ForkResult(NamedTuple):
    """How a fork ended.

    `reports`: its reports, in order. `finished`: the function returned. `exceeded`: the limit at which the fork was
    killed, "busy" or "waiting", otherwise empty. `code`: the exit code, negative for a signal, None if unknown.
    `error`: the exception that the function raised, as text. `stack`: the frames at a fatal signal or at the limit,
    most recent call first, otherwise empty.
    """

    reports: list[str]
    finished: bool = False
    exceeded: str = ""
    code: int | None = None
    error: str = ""
    stack: Sequence[StackFrame] = ()


def run(work: Work, limit: Callable[[str], Limit]) -> ForkResult:
    """Run `work` in a fork and wait until it ends.

    `limit` returns the time limit after a report (an empty text: after the start) until the next report; if it is
    exceeded, the fork is killed. Raises OSError if the process cannot fork.
    """
    reading, writing = os.pipe()
    with suppress(OSError, ValueError):  # otherwise the fork could write buffered output again
        sys.stderr.flush()
    with _stack_file() as stack, os.fdopen(reading, "rb", buffering=0) as reports:
        parent = os.getpid()
        try:
            pid = os.fork()
        except BaseException:
            os.close(writing)
            raise
        if pid == 0:
            _run_child(work, writing, stack, parent)
        os.close(writing)
        follower = _Follower(pid, reports, limit)
        try:
            follower.follow()
        except BaseException:
            follower.kill()
            raise
        return follower.ended(_frames(stack))


class _Follower:
    """The parent's side: reads reports, enforces the limit and waits for the end."""

    def __init__(self, pid: int, reports: IO[bytes], limit: Callable[[str], Limit]) -> None:
        os.set_blocking(reports.fileno(), False)
        self._pid, self._reports, self._limit = pid, reports, limit
        self._open = True
        self._rest = b""
        self._told: list[str] = []
        self._error = ""
        self._finished = self._over = False
        self._exceeded = ""
        self._code: int | None = None

    def follow(self) -> None:
        """Wait until the fork has ended and its reports are read."""
        watch = Watch(self._pid, self._limit(""))
        with Waiter(self._pid) as waiter:
            while not self._reap():
                waiter.wait(self._reports.fileno() if self._open else None, watch.left())
                if self._read():
                    watch = Watch(self._pid, self._limit(self._told[-1] if self._told else ""))
                elif watch.left() <= 0 and not self._reap():
                    self._exceeded = watch.exceeded
                    self._stop(waiter)
        self._read()

    def kill(self) -> None:
        """Kill the fork."""
        if not self._over:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
            self._over = True

    def ended(self, stack: list[StackFrame]) -> ForkResult:
        """Return how the fork ended; call `follow` first."""
        finished = self._finished and not self._exceeded
        return ForkResult(self._told, finished, self._exceeded, self._code, self._error, stack)

    def _stop(self, waiter: Waiter) -> None:
        """Stop the fork by SIGABRT, on which faulthandler writes the stack even while C code holds the GIL."""
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGABRT)
        until = time.monotonic() + _DUMP_SECONDS
        while not self._reap() and (left := until - time.monotonic()) > 0:
            waiter.wait(None, left)
        self.kill()

    def _reap(self) -> bool:
        if not self._over:
            try:
                pid, status = os.waitpid(self._pid, os.WNOHANG)
            except ChildProcessError:  # user code has reaped all children
                self._over = True
            else:
                if pid:
                    self._over, self._code = True, os.waitstatus_to_exitcode(status)
        return self._over

    def _read(self) -> bool:
        """Read the available data; return whether it contained a complete report."""
        count = len(self._told)
        while self._open:
            try:
                chunk = os.read(self._reports.fileno(), 65_536)
            except BlockingIOError:
                break
            self._open = bool(chunk)
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                self._handle(line.decode("utf-8", "replace"))
        return len(self._told) > count or self._finished

    def _handle(self, line: str) -> None:
        kind, text = line[:1], line[1:]
        if kind == _TOLD:
            self._told.append(text)
        elif kind == _RAISED:
            self._error = text
        self._finished |= kind == _FINISHED


def _run_child(work: Work, writing: int, stack: IO[bytes], parent: int) -> None:
    """Run the work in the fork, send its result, and exit."""
    code = 1
    try:
        _die_with(parent)
        _without_pipes()
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(_MOST_LIKELY_KILLED)
        faulthandler.enable(stack, all_threads=False)

        def tell(text: str) -> None:
            _send(writing, _TOLD, text)

        code = _ended(work, tell, writing)
    finally:
        os._exit(code)


def _ended(work: Work, tell: Report, writing: int) -> int:
    try:
        work(tell)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        _send(writing, _RAISED, _text(error))
        return 1
    _send(writing, _FINISHED, "")
    return 0


def _send(writing: int, kind: str, text: str) -> None:
    line = f"{kind}{text}".replace("\n", " ").encode("utf-8", "replace") + b"\n"
    os.write(writing, line)


def _text(error: BaseException) -> str:
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # __str__ of a user's exception may raise
        return type(error).__name__
    return text if len(text) <= _LONGEST_ERROR else text[: _LONGEST_ERROR - 1] + "…"


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _without_pipes() -> None:
    """Replace stdin and stdout, so that no reader waits for the fork to close them."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(nothing, descriptor)
    os.close(nothing)


def _stack_file() -> IO[bytes]:
    create = getattr(os, "memfd_create", None)
    if create is None:
        return tempfile.TemporaryFile(buffering=0)
    return os.fdopen(create("stack"), "w+b", buffering=0)


def _frames(stack: IO[bytes]) -> list[StackFrame]:
    stack.seek(0)
    text = stack.read(65_536).decode("utf-8", "replace")
    return [StackFrame(path, int(line), function) for path, line, function in _FRAME.findall(text)]
