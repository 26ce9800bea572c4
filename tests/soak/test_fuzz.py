"""Every fuzzer at length: at least three million inputs together, a second and 200 MB at most."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.fuzz.__main__ import LONG_RUN
from tests.fuzz.watch import GROWTH_MB, SECONDS

_INPUTS = 3_000_000


def test_there_are_enough_inputs() -> None:
    assert sum(LONG_RUN.values()) >= _INPUTS


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize(("name", "count"), LONG_RUN.items())
def test_no_input_breaks_a_reader(name: str, count: int) -> None:
    command = [sys.executable, "-m", "tests.fuzz", name, "--count", str(count)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{ran.stdout[-2000:]}\n{ran.stderr[-8000:]}"
    summary = json.loads(ran.stdout.splitlines()[-1])
    print(ran.stdout.splitlines()[-1])
    assert summary["inputs"] == count
    assert summary["slowest_s"] <= SECONDS
    assert summary["grown_mb"] <= GROWTH_MB
