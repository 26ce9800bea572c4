"""Complete runs with the real KCL daemon: devices, bus, pipe, stream, consumer and storage."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from stream_app import app
from stream_app.aws import objects
from stream_app.cli.views.summary import render
from stream_app.daemon.supervisor import Restarts
from stream_app.local.daemon_thread import DaemonThread
from stream_app.local.embedded import Embedded
from stream_app.local.run import chaos, drain
from stream_app.local.run.embedded_run import Options, run
from stream_app.local.run.report import Report
from stream_app.local.run.status import RunStatus
from stream_app.local.run.tracker import Tracker
from stream_app.recovery.audit import checkpoints
from stream_app.recovery.audit.proof import Audit
from stream_app.resources import shipped

pytestmark = pytest.mark.timeout(240)
AGAIN = "again"
READINGS = 2400


def options(folder: Path, **changes: Any) -> Options:
    return replace(Options(first=READINGS, rate=None, segment_seconds=2, folder=folder), **changes)


def assert_balanced(report: Report) -> None:
    assert report.problems == ()
    assert report.balanced
    assert report.sent + report.redriven == report.accepted > READINGS
    assert report.accepted == report.stored + report.repeated + sum(report.parked.values())
    assert (report.missing, report.duplicated, report.pending) == (0, 0, 0)
    expected = dict(report.expected)
    assert report.repeated == expected.pop("repeated") > 0
    assert report.parked == expected
    assert report.hydrated == sum(report.parked.values()) > 0
    assert report.processed == report.redriven == report.parked["CALCULATION_FAILED"] > 0


def test_a_run_balances_and_parks_each_fault_under_its_code(tmp_path: Path) -> None:
    report = run(options(tmp_path), app.clients, RunStatus(), threading.Event())

    assert_balanced(report)
    assert len(report.shards) == 4
    assert report.restarts == 0
    assert report.segments >= 4
    assert report.ready_s is not None


def test_a_run_reports_the_rows_that_could_not_be_sent(tmp_path: Path) -> None:
    """A record with an empty device key has no partition key, so the pipe could never send it."""
    data = tmp_path / "readings.csv"
    stations = ["" if row in (7, 31) else f"s{row % 4}" for row in range(1, 41)]
    lines = [f"2016-12-01T{n // 60:02d}:{n % 60:02d}:00Z,{n},{key},5" for n, key in enumerate(stations)]
    data.write_text("\n".join(["time,id,station,pm25", *lines]) + "\n")
    report = run(
        options(tmp_path, data=str(data), first=None, faults=False, event="air_quality", shards=1),
        app.clients,
        RunStatus(),
        threading.Event(),
    )
    assert report.balanced
    assert (report.sent, report.accepted) == (38, 38)
    text = io.StringIO()
    Console(file=text, width=200).print(render(report))
    (line,) = [line for line in text.getvalue().splitlines() if "not sent" in line]
    ((why, rows),) = report.unsendable.items()
    assert (why, rows["count"]) == ("the key is empty", 2)
    assert line.startswith(f"2 not sent, the key is empty: rows {rows['rows'][0]}, {rows['rows'][1]}")
    assert report.to_json()["unsendable"] == {why: rows}


def test_a_killed_daemon_and_resharding_do_not_change_stored_data(tmp_path: Path) -> None:
    """SIGKILL, a split and a merge during the run; then an undisturbed application reads the same stream."""
    found: dict[str, dict[str, pa.Table]] = {}

    def read_again(aws: Embedded, _audit: Audit) -> None:
        found["disturbed"] = stored(aws.client("s3"), aws.outputs["BucketName"])
        found["undisturbed"] = undisturbed(aws, tmp_path)

    actions = chaos.parse("split@400,kill@900,merge@1400")
    report = run(
        options(tmp_path, actions=actions, rate=300.0),
        app.clients,
        RunStatus(),
        threading.Event(),
        read_again,
    )

    assert_balanced(report)
    assert report.restarts == 1
    assert len(report.shards) == 4 + 2 + 1
    assert found["disturbed"].keys() == found["undisturbed"].keys()
    for key, table in found["undisturbed"].items():
        assert found["disturbed"][key].equals(table), key


def undisturbed(aws: Embedded, folder: Path) -> dict[str, pa.Table]:
    """Return what another, undisturbed application stores for the same stream."""
    client = aws.client
    client("s3").create_bucket(Bucket=AGAIN)
    queue = client("sqs").create_queue(QueueName=AGAIN)["QueueUrl"]
    overrides: Mapping[str, str | None] = {
        **aws.settings(),
        "applicationName": AGAIN,
        "workerId": AGAIN,
        "app.bucket": AGAIN,
        "app.dead_letter_queue": queue,
        "app.latest_table": "",
        "app.bus": "",
        "app.segment_seconds": "2",
        "app.checkpoint_seconds": "2",
    }
    stream, tracker = aws.outputs["StreamName"], Tracker()
    with (folder / "again.log").open("wb") as log:
        daemon = DaemonThread(
            shipped("properties") / "local.properties",
            environ=aws.environ,
            overrides=overrides,
            on_line=tracker.line,
            log=log,
            restarts=Restarts(limit=0),
            before=lambda _worker: None,
        )
        with daemon:
            while not (committed := checkpoints.read(client("dynamodb"), AGAIN)) or drain.uncommitted_shards(
                client("kinesis"), stream, committed
            ):
                daemon.check()
                time.sleep(0.5)
    return stored(client("s3"), AGAIN)


def stored(s3: Any, bucket: str) -> dict[str, pa.Table]:
    """Return the content of every stored file by key."""
    keys = list(objects.keys(s3, bucket, "events/"))
    assert keys
    return {key: pq.read_table(io.BytesIO(objects.get(s3, bucket, key) or b"")) for key in keys}
