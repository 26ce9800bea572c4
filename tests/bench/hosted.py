"""Helpers for benchmarks with many shards: memory by kind of process, and generated batches of readings."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from stream_app.model.record import Record
from stream_app.testing import record

_KINDS = (  # text in the command line, kind; the first match wins
    ("MultiLangDaemon", "KCL's JVM"),
    ("stream_app.forkserver.main", "host"),
    ("forkserver/client.py", "launchers"),
    ("trap '' INT TERM", "launchers"),
    ("stream-app-consumer", "consumers of their own"),
    ("stream_app.record_processor", "consumers of their own"),
    ("local runners", "embedded AWS"),
    ("stream_app.local", "embedded AWS"),
)


def pss_mb(process: psutil.Process) -> float:
    """Proportional set size in MB: shared pages are divided among the processes that share them."""
    words = Path(f"/proc/{process.pid}/smaps_rollup").read_text().split()
    return int(words[words.index("Pss:") + 1]) / 1024


def by_kind(root: psutil.Process) -> dict[str, list[float]]:
    """Return the PSS of each descendant process, by kind; forks of the forkserver are `shards`."""
    found: dict[str, list[float]] = {}
    for process in root.children(recursive=True):
        try:
            kind = _kind(process)
            if kind == "host" and _kind(psutil.Process(process.ppid())) == "host":
                kind = "shards"
            found.setdefault(kind, []).append(pss_mb(process))
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            continue
    return found


def _kind(process: psutil.Process) -> str:
    line = " ".join(process.cmdline())
    return next((kind for mark, kind in _KINDS if mark in line), "other")


def readings(shard: int, batch: int, *, devices: int, rows: int, now_ms: int) -> list[Record]:
    """Return a batch of air-quality records for one shard, with consecutive hours for each device."""
    return [
        record(json.dumps(body).encode(), batch * rows + at, key=body["resources"][0], arrived=now_ms)
        for at, body in enumerate(envelopes(shard, batch, devices=devices, rows=rows, now_ms=now_ms))
    ]


def envelopes(shard: int, batch: int, *, devices: int, rows: int, now_ms: int) -> Iterator[dict[str, Any]]:
    """Yield the envelopes of such a batch as JSON values."""
    rng = random.Random(shard * 1_000 + batch)
    for at in range(rows):
        number = batch * rows + at
        station, hour = f"station-{shard:02d}-{number % devices:05d}", number // devices
        detail = {
            "id": f"{station}/{hour}",
            "station": station,
            "time": now_ms - (5_000 - hour % 5_000) * 3_600_000,
            **{name: round(rng.uniform(1, 80), 1) for name in ("pm25", "pm10", "so2", "no2", "o3")},
            "co": 400.0,
            "temperature": round(rng.uniform(-5, 30), 1),
            "pressure": 1013.0,
            "dew_point": 2.0,
            "rain": 0.0,
            "wind_speed": 2.4,
            "wind_direction": "NNE",
            "sent_at": now_ms,
        }
        yield {
            "version": "0",
            "id": "1b0ba35a-2f4f-8f6c-9a3b-0a51cf00cdf2",
            "detail-type": "air_quality",
            "source": "stream-app.devices",
            "resources": [station],
            "detail": detail,
        }
