"""A new event type is one `.avsc` and one small module, nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stream_app.event_loading import discover, load_registry
from stream_app.model.record import Code
from stream_app.pipeline.flow import process
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.testing import record, run
from tests.samples import as_avro, as_envelope, as_json

SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "meter",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "meter", "type": "string"},
        {"name": "time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "litres", "type": ["null", "double"], "default": None},
    ],
}
MODULE = '''
"""Water meters."""

import numpy as np

from stream_app.api import Event, Window


class Jump:
    """A detector in nine lines."""

    threshold = 50.0

    def __init__(self, features):
        self.last = {}

    def process_many(self, keys, X, times=None):
        def jump(key, x):
            before, self.last[key] = self.last.get(key, x), x
            return abs(x - before)
        return np.array([jump(key, x) for key, x in zip(keys, X[:, 0].tolist())])

    def snapshot(self):
        return repr(self.last).encode()

    def restore(self, state, keep=lambda key: True):
        self.last.update({k: v for k, v in eval(state).items() if keep(k)})


def verify(batch):
    return {"a meter does not run backwards": ~(batch["litres"] < batch["previous.litres"])}


def calculate(batch):
    return {"used": batch["litres"] - batch["previous.litres"], "mean": np.nanmean(batch["window.litres"], axis=1)}


EVENT = Event(
    name="meter",
    key="meter",
    required=("meter", "time", "litres"),
    verify=verify,
    calculate=calculate,
    features=("litres",),
    detector=Jump,
    window=Window(("litres",), size=2),
    previous=("litres",),
)
'''
ROWS = [
    {"id": str(at), "meter": "m", "time": f"2016-12-01T0{at}:00:00Z", "litres": litres}
    for at, litres in enumerate([1, 3, 2, None, 100, 101])
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the two files, in which the program is started."""
    for name, file, text in (("schemas", "meter.avsc", json.dumps(SCHEMA)), ("events", "meter.py", MODULE)):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(text)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("events.meter", None)


def test_a_schema_and_a_module_define_an_event() -> None:
    ran = run(discover()["meter"], ROWS)
    assert ran.passed.index.tolist() == [0, 1, 4, 5]
    assert ran.passed["used"].tolist()[1:] == [2.0, 97.0, 1.0]
    assert ran.passed["mean"].tolist() == [1.0, 2.0, 100.0, 100.5]
    assert ran.passed["anomaly"].tolist() == [False, False, True, False]
    assert [(f.row, f.code) for f in ran.failed] == [(2, Code.RULE_BROKEN), (3, Code.FIELD_MISSING)]
    assert ran.repeated == []


def test_a_new_event_works_with_the_shipped_events_in_every_format() -> None:
    registry = load_registry()
    state = ShardState({name: codec.event for name, codec in registry.codecs.items()}, 9)
    row = ROWS[0]
    parcel = {"id": "p", "parcel": "p", "status": "picked_up", "time": "2016-12-01T00:00:00Z"}
    payloads = [
        as_json("meter", row),
        as_envelope("meter", {**row, "id": "another"}),
        as_avro({**row, "id": "third", "time": 1_480_550_400_000}, SCHEMA),
        as_envelope("parcel", parcel),
        as_json("meter", row),
    ]
    result = process([record(data, at) for at, data in enumerate(payloads)], registry, state, 10_000)
    assert {name: batch.rows.tolist() for name, batch in result.passed.items()} == {
        "meter": [0, 1, 2],
        "parcel": [3],
    }
    assert result.repeated.tolist() == [4]


def test_an_explicit_schema_replaces_the_schema_file() -> None:
    event = discover()["meter"]
    narrow = {**SCHEMA, "fields": [f for f in SCHEMA["fields"] if f["name"] != "id"]}
    assert len(run(event, [ROWS[0], ROWS[0]], schema=narrow).passed) == 2
    assert run(event, [ROWS[0], ROWS[0]]).repeated == [1]
    assert len(run(event, []).passed) == 0


def test_a_new_event_works_with_only_the_installed_package(folder: Path) -> None:
    script = (
        "from stream_app.event_loading import load_registry; from stream_app.testing import run;"
        "from stream_app.event import discover;"
        f"print(sorted(load_registry().codecs), len(run(discover()['meter'], {ROWS!r}).passed))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == ["['air_quality',", "'meter',", "'parcel']", "4"]
