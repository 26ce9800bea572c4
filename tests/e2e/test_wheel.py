"""The built wheel, installed in an empty folder elsewhere, with a user's own event type beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(240)
TOP = Path(__file__).parents[2]

MODULE = '''"""Tanks, and how full they are."""
from stream_app.api import Event


def calculate(batch):
    print("a line that a user's code prints")
    return {"share": batch["level"] / 100.0}


EVENT = Event(name="tank", key="tank", required=("id", "tank", "time"), calculate=calculate)
'''
SCHEMA = {
    "type": "record",
    "name": "tank",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "tank", "type": "string"},
        {"name": "time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "level", "type": ["null", "double"], "default": None},
    ],
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(TOP)]
    subprocess.run(build, check=True, cwd=folder, stdin=subprocess.DEVNULL)
    [wheel] = folder.glob("stream_app-*.whl")
    installed = folder / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(installed), str(wheel)], check=True)
    return installed


def stream_app(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stream_app.cli", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_a_users_own_event_type_runs_from_the_wheel(site: Path, tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    (tmp_path / "schemas").mkdir()
    (tmp_path / "events" / "tank.py").write_text(MODULE)
    (tmp_path / "schemas" / "tank.avsc").write_text(json.dumps(SCHEMA))
    rows = [
        {
            "id": f"{tank}-{hour}",
            "tank": f"t{tank}",
            "time": f"2026-01-01T{hour:02}:00:00Z",
            "level": hour * 4.0,
        }
        for hour in range(24)
        for tank in range(10)
    ]
    (tmp_path / "tanks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    done = stream_app(site, tmp_path, "run", "tanks.jsonl", "--no-faults", "--speed", "max", "--json")

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["balanced"]
    assert report["accepted"] == report["stored"] == 240
    assert (tmp_path / ".stream-app" / "daemon.log").is_file()


def test_the_wheel_reports_problems_of_a_users_module(site: Path, tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "tank.py").write_text("EVENT = nothing\n")

    done = stream_app(site, tmp_path, "run", "--first", "10", "--json")

    assert done.returncode == 2
    assert "events/tank.py" in done.stderr
    assert "Traceback" not in done.stderr
