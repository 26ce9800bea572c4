"""Compares the consumer with amazon_kclpy, other stream processors and a floor: `make bench ARGS='-k consumer'`.

Writes build/bench/consumer.json. For single measurements see `python -m tests.bench.consumer --help`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.consumer import plan
from tests.bench.consumer.ways import FLOOR, OURS, STOCK


@pytest.mark.timeout(1_800)
def test_the_complete_consumer(tmp_path: Path) -> None:
    results = plan.standard(tmp_path)
    # All variants ran in turn on the same machine, so ratios are comparable where absolute times are not.
    assert results.headline.ratio(STOCK) > 10
    assert results.headline.ratio(FLOOR) > 0.2
    assert results.headline.best(OURS) > 0
