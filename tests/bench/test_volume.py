"""Sends 414,720 readings through the real KCL daemon at full speed; checks the audit and memory growth.

The input is the bundled winter data set sixteen times, each copy in a different year. Writes build/bench/volume.json.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pandas as pd
import pytest

from stream_app import app
from stream_app.local.run.embedded_run import Options, run
from stream_app.local.run.status import RunStatus

COPIES = 16
BUNDLED = Path(__file__).parents[2] / "stream_app" / "ingest" / "data" / "beijing-winter.parquet"
# The embedded AWS is not listed: it stores objects in memory, so it is expected to grow.
FLAT = ("runners", "devices", "daemon", "consumers")


@pytest.fixture(scope="module")
def many_winters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    winter = pd.read_parquet(BUNDLED)
    year = pd.Timedelta(days=364)  # a multiple of seven, to keep the day of the week
    copies = [winter.assign(time=winter["time"] - year * back) for back in range(COPIES - 1, -1, -1)]
    path = tmp_path_factory.mktemp("volume") / "winters.parquet"
    pd.concat(copies).drop(columns=["id"], errors="ignore").to_parquet(path, index=False)
    return path


@pytest.mark.timeout(900)
def test_the_full_volume_balances_in_constant_memory(many_winters: Path, tmp_path: Path) -> None:
    options = Options(data=str(many_winters), rate=None, via="stream", folder=tmp_path)
    report = run(options, app.clients, RunStatus(), threading.Event())

    measured = report.to_json()
    measured.pop("shards")
    out = Path("build/bench/volume.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(measured, indent=2))
    print(json.dumps(measured, indent=2))
    assert report.balanced
    assert report.accepted > COPIES * 25_920
    for part in FLAT:
        memory = report.memory_mb[part]
        assert memory["end"] <= 1.25 * memory["warm"] + 20, (part, memory)
