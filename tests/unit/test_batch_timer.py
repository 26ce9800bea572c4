"""The batch timer ends a process whose batch exceeds its time limit."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

_PROGRAM = """
import re, time
from stream_app.consumer.quarantine.batch_timer import BatchTimer
timer = BatchTimer({seconds}, warm={warm})
for batch in range(3):
    with timer:
        pass
print("before", flush=True)
with timer:
    {work}
print("after", flush=True)
"""


def run(work: str, seconds: float, warm: bool = True) -> tuple[int, str]:
    program = _PROGRAM.format(work=work, seconds=seconds, warm=warm)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    "work", ["while True: pass", "re.match('(a+)+$', 'a' * 64 + 'b')"], ids=["loop", "in C"]
)
def test_a_batch_that_exceeds_its_cpu_time_is_killed(work: str) -> None:
    code, output = run(work, 0.1)
    assert code in (-signal.SIGPROF, -signal.SIGALRM)
    assert output == "before\n"


def test_a_batch_that_waits_for_too_long_is_killed() -> None:
    assert run("time.sleep(3600)", 0.1) == (-signal.SIGALRM, "before\n")


@pytest.mark.parametrize("seconds", [0, 3600])
def test_a_batch_within_its_limit_or_without_a_limit_completes(seconds: int) -> None:
    assert run("time.sleep(0.01)", seconds) == (0, "before\nafter\n")
