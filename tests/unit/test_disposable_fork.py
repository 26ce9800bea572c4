"""A disposable fork: how it ends is reported, and it never ends its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from stream_app.processes.disposable_fork import ForkResult, Limit, Report, run

GENEROUS = Limit(60.0, 240.0)


def forked(work: Callable[[Report], object], limit: Limit = GENEROUS) -> ForkResult:
    def quietly(tell: Report) -> None:
        work(tell)

    return run(quietly, lambda _report: limit)


def test_reports_arrive_in_order_and_the_parents_memory_is_unchanged() -> None:
    here: list[int] = []

    def work(tell: Report) -> None:
        for number in range(10_000):
            here.append(number)
            tell(str(number))

    ended = forked(work)
    assert (ended.reports, ended.finished, ended.code) == (list(map(str, range(10_000))), True, 0)
    assert here == []


def test_line_breaks_in_a_report_are_replaced() -> None:
    assert forked(lambda tell: tell("one\ntwo")).reports == ["one two"]


@pytest.mark.parametrize(
    ("work", "code", "error"),
    [
        (lambda _: os._exit(0), 0, ""),
        (lambda _: os._exit(7), 7, ""),
        (lambda _: sys.exit(3), 3, ""),
        (lambda _: sys.exit("words"), 1, ""),
        (lambda _: sys.exit(), 0, ""),
        (lambda _: 1 / 0, 1, "ZeroDivisionError: division by zero"),
        (lambda _: os.kill(os.getpid(), signal.SIGKILL), -signal.SIGKILL, ""),
        (lambda _: ctypes.string_at(0), -signal.SIGSEGV, ""),
        (lambda _: os.abort(), -signal.SIGABRT, ""),
    ],
)
def test_an_early_exit_is_reported_with_its_exit_code_or_error(
    work: Callable[[Report], object], code: int, error: str
) -> None:
    ended = forked(work)
    assert (ended.finished, ended.exceeded, ended.code, ended.error) == (False, "", code, error)
    if code in (-signal.SIGSEGV, -signal.SIGABRT):
        assert "<lambda>" in [frame.function for frame in ended.stack]


def test_a_busy_fork_without_reports_is_killed_with_its_stack() -> None:
    def for_ever(tell: Report) -> None:
        tell("begun")
        while True:
            pass

    ended = forked(for_ever, Limit(0.2, 60.0))
    assert (ended.reports, ended.exceeded, ended.finished) == (["begun"], "busy", False)
    assert "for_ever" in [frame.function for frame in ended.stack]


def test_a_waiting_fork_without_reports_is_killed() -> None:
    assert forked(lambda _: time.sleep(3_600), Limit(60.0, 0.2)).exceeded == "waiting"


def test_the_limit_restarts_with_each_report() -> None:
    """The reports take longer than the limit in total."""

    def work(tell: Report) -> None:
        for number in range(8):
            until = time.process_time() + 0.1
            while time.process_time() < until:
                pass
            tell(str(number))

    assert forked(work, Limit(0.4, 240.0)).finished


def test_a_remaining_grandchild_does_not_block_the_parent() -> None:
    def work(tell: Report) -> None:
        pid = os.fork()
        if not pid:
            time.sleep(3_600)
        tell(str(pid))
        os._exit(5)

    ended = forked(work)
    assert ended.code == 5
    os.kill(int(ended.reports[0]), signal.SIGKILL)


def test_it_closes_inherited_pipes_and_is_killed_first_if_memory_runs_out() -> None:
    def work(tell: Report) -> None:
        tell(str(Path("/proc/self/fd/0").readlink()))
        tell(str(Path("/proc/self/fd/1").readlink()))
        tell(Path("/proc/self/oom_score_adj").read_text().strip())

    assert forked(work).reports == ["/dev/null", "/dev/null", "1000"]


def test_it_ends_with_its_parent() -> None:
    program = """
import os, time
from stream_app.processes.disposable_fork import Limit, run
def work(tell):
    os.write(2, str(os.getpid()).encode() + b"\\n")
    time.sleep(3600)
run(work, lambda _: Limit(3600.0, 3600.0))
"""
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE) as parent:
        assert parent.stderr is not None
        fork = psutil.Process(int(parent.stderr.readline()))
        parent.kill()
    psutil.wait_procs([fork], timeout=30)
    assert not fork.is_running() or fork.status() == psutil.STATUS_ZOMBIE
