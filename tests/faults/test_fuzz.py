"""Every fuzzer at length: at least three million inputs together, a second and 200 MB at most."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.fuzz.__main__ import NAMES
from tests.fuzz.watch import GROWTH_MB, SECONDS

_INPUTS = 3_000_000
_EACH = -(-_INPUTS // len(NAMES))


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("name", NAMES)
def test_no_input_breaks_what_reads_it(name: str) -> None:
    command = [sys.executable, "-m", "tests.fuzz", name, "--count", str(_EACH)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{ran.stdout[-2000:]}\n{ran.stderr[-8000:]}"
    summary = json.loads(ran.stdout.splitlines()[-1])
    print(ran.stdout.splitlines()[-1])
    assert summary["inputs"] == _EACH
    assert summary["slowest_s"] <= SECONDS
    assert summary["grown_mb"] <= GROWTH_MB
