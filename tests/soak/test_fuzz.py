"""Long runs of all fuzzers: at least 3,000,000 inputs in total, within the limits of `tests.fuzz.watch`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.fuzz.__main__ import LONG_RUN
from tests.fuzz.watch import GROWTH_MB, SECONDS

_MIN_INPUTS = 3_000_000


def test_long_runs_have_enough_inputs() -> None:
    assert sum(LONG_RUN.values()) >= _MIN_INPUTS


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize(("name", "count"), LONG_RUN.items())
def test_long_run_finds_no_failure(name: str, count: int) -> None:
    command = [sys.executable, "-m", "tests.fuzz", name, "--count", str(count)]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, f"{completed.stdout[-2000:]}\n{completed.stderr[-8000:]}"
    summary = json.loads(completed.stdout.splitlines()[-1])
    print(completed.stdout.splitlines()[-1])
    assert summary["inputs"] == count
    assert summary["slowest_s"] <= SECONDS
    assert summary["grown_mb"] <= GROWTH_MB
