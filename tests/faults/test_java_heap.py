"""Shards that catch up over the real KCL daemon: the default heap suffices; recovery works with a smaller one."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream_app.daemon.supervisor import Restarts
from tests.bench.heap.catch_up import Case, catch_up

JAVA_17 = Path("/usr/lib/jvm/java-17-openjdk-amd64")
RUNTIMES = [{}, *([{"JAVA_HOME": str(JAVA_17)}] if JAVA_17.exists() else [])]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("java", RUNTIMES)
@pytest.mark.parametrize(("size", "records"), [(361, 40_000), (1_000_000, 27)])
def test_four_shards_catch_up_with_the_default_heap(
    tmp_path: Path, java: dict[str, str], size: int, records: int
) -> None:
    result = catch_up(Case(4, size, records), tmp_path, environ=java)
    assert result.passed, result
    assert result.heap == "512m"


@pytest.mark.timeout(600)
def test_after_an_out_of_memory_error_the_next_daemon_prefetches_less_and_finishes(tmp_path: Path) -> None:
    restarts = Restarts(limit=5, base_seconds=0)
    small = {"STREAM_APP_JAVA_HEAP": "120m"}
    result = catch_up(Case(4, 1_000_000, 27), tmp_path, environ=small, restarts=restarts)
    assert result.complete, result
    assert result.out_of_memory >= 1
