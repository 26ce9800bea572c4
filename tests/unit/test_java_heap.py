"""The heap size of the KCL daemon: enough for the shards, within the memory, and configurable."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.daemon.java_heap import (
    HEAP_ENVIRONMENT,
    HEAP_PROPERTY,
    MIB,
    after_out_of_memory,
    batch_bytes,
    chosen_heap,
    largest_batch,
    memory_limit,
    needed,
    size,
)
from stream_app.errors import ConfigError
from stream_app.resources import shipped
from stream_app.settings import read_properties

GIB = 1 << 30
PLENTY = 1_000 * GIB
SHIPPED = [
    read_properties(shipped("properties") / name) for name in ("local.properties", "production.properties")
]


def heap(shards: int | None, memory: int = PLENTY, **properties: str) -> tuple[str, int]:
    found = size(
        {name.replace("_", "."): value for name, value in properties.items()},
        {},
        shards=shards,
        memory=memory,
    )
    return found.heap, found.max_records


@pytest.mark.parametrize("text", ["256m", "2g", "524288K"])
def test_a_configured_heap_size_is_used(text: str) -> None:
    assert chosen_heap({HEAP_ENVIRONMENT: text}, {HEAP_PROPERTY: "1g"}) == text
    assert chosen_heap({}, {HEAP_PROPERTY: text}) == text
    assert size({HEAP_PROPERTY: text}, {}, shards=64, memory=GIB).heap == text
    assert chosen_heap({HEAP_ENVIRONMENT: ""}, {HEAP_PROPERTY: ""}) is None


@pytest.mark.parametrize("text", ["256", "much", "256m -Dx=y", "-1m", "٣m"])
def test_an_invalid_heap_size_is_rejected(text: str) -> None:
    with pytest.raises(ConfigError, match=HEAP_ENVIRONMENT):
        chosen_heap({HEAP_ENVIRONMENT: text})
    with pytest.raises(ConfigError, match=HEAP_PROPERTY):
        chosen_heap({}, {HEAP_PROPERTY: text})


@pytest.mark.parametrize("properties", SHIPPED)
def test_four_shards_have_512_mb_with_the_shipped_settings(properties: dict[str, str]) -> None:
    for shards in (4, None):
        found = size(properties, {}, shards=shards, memory=PLENTY)
        assert (found.heap, found.max_records, found.lowered) == ("512m", 10_000, False)


def test_the_heap_grows_with_the_maximum_number_of_shards_per_worker() -> None:
    assert heap(1) == ("256m", 10_000)
    assert heap(16) == ("1688m", 10_000)
    assert heap(64) == heap(1_000) == ("6392m", 10_000)
    assert heap(1_000, maxLeasesForWorker="16") == heap(16)
    assert heap(4, maxLeasesForWorker="16") == heap(4)
    assert heap(None, maxLeasesForWorker="16") == heap(16)


def test_a_known_record_size_reduces_the_heap() -> None:
    known = {"app.record_bytes": "100"}
    small = size(known, {}, shards=16, memory=PLENTY)
    assert int(small.heap[:-1]) < 1_688
    assert not small.lowered
    assert size({"app.record_bytes": "1048576"}, {}, shards=16, memory=PLENTY).heap == "1688m"


def test_max_records_is_lowered_if_memory_is_short() -> None:
    found = size({}, {}, shards=16, memory=GIB)
    assert found.heap == "512m"
    assert found.lowered
    assert 1_000 <= found.max_records < 10_000
    assert found.log_fields()["level"] == "WARN"
    large = size({"app.record_bytes": "100000"}, {}, shards=16, memory=GIB)
    assert large.max_records * 100_000 < 3 * MIB
    assert size({}, {HEAP_ENVIRONMENT: "256m"}, shards=4, memory=PLENTY).lowered


@given(
    st.integers(1, 2_000),
    st.integers(64 * MIB, 64 * GIB),
    st.integers(0, 10 * MIB),
    st.sampled_from(["", "1", "500", "10000"]),
)
def test_the_heap_is_within_memory_and_sufficient_for_the_lowered_max_records(
    shards: int, memory: int, record: int, records: str
) -> None:
    properties = {
        "app.record_bytes": str(record),
        "maxRecords": records,
        "idleTimeBetweenReadsInMillis": "500",
    }
    found = size(properties, {}, shards=shards, memory=memory)
    given_ = int(found.heap[:-1]) * MIB
    assert given_ <= max(256 * MIB, memory // 2)
    assert 1 <= found.max_records <= int(records or 10_000)
    if record and found.max_records > max(1, min(1_000, MIB // record)):
        assert needed(found.shards, batch_bytes(found.max_records, record)) <= given_ + 2 * MIB


@given(st.integers(1, 500), st.integers(0, 20 * MIB))
def test_the_largest_batch_is_the_inverse_of_the_needed_heap(shards: int, batch: int) -> None:
    assert abs(largest_batch(needed(shards, batch), shards) - batch) <= 1


def test_max_records_decreases_to_one_after_repeated_out_of_memory_exits() -> None:
    seen = [10_000]
    while seen[-1] > 1:
        seen.append(after_out_of_memory(seen[-1]))
    assert seen == [10_000, 1_250, 156, 19, 2, 1]
    assert after_out_of_memory(1) == 1


# ---- Available memory


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"sys/fs/cgroup/memory.max": "536870912\n"}, 536_870_912),
        (
            {
                "proc/self/cgroup": "0::/system.slice/app.service\n",
                "sys/fs/cgroup/system.slice/memory.max": "300000000\n",
                "sys/fs/cgroup/system.slice/app.service/memory.max": "max\n",
            },
            300_000_000,
        ),
        (
            {
                "proc/self/cgroup": "5:memory:/docker/x\n1:cpu:/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": "200000000\n",
            },
            200_000_000,
        ),
    ],
)
def test_the_memory_limit_of_a_container_is_used(tmp_path: Path, files: dict[str, str], limit: int) -> None:
    assert memory_limit(tree(tmp_path, files)) == limit


def test_without_a_limit_the_memory_of_the_machine_is_used(tmp_path: Path) -> None:
    machine = memory_limit(tree(tmp_path, {"sys/fs/cgroup/memory.max": "max\n"}))
    assert machine == memory_limit(tmp_path / "nothing") > 100 * MIB
