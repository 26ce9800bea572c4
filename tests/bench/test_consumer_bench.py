"""The whole consumer against the stock way, other stream processors and the floor: `make bench ARGS='-k consumer'`.

Writes build/bench/consumer.json. `python -m tests.bench.consumer --help` measures single points.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.consumer import plan
from tests.bench.consumer.ways import FLOOR, OURS, STOCK


@pytest.mark.timeout(1_800)
def test_the_complete_consumer(tmp_path: Path) -> None:
    results = plan.standard(tmp_path)
    # All ways ran in turn on this machine: factors hold where seconds do not.
    assert results.headline.ratio(STOCK) > 10
    assert results.headline.ratio(FLOOR) > 0.2
    assert results.headline.best(OURS) > 0
