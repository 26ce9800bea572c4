"""Objects stored before the renames stay readable: snapshot, segment, manifest, failures, plan and history.

`tests/data/stored-before.zip` holds the objects and the table items of a run of that version: 2,800 readings and 40
injected faults through the KCL daemon, its plan, and its audit.
"""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from stream_app import event_loading
from stream_app.aws.clients import ClientFactory
from stream_app.model.record import Record
from stream_app.pipeline.flow import process
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.recovery.correct.history_entry import entry_of
from stream_app.recovery.redrive import manifests
from stream_app.recovery.redrive.plan import file as plan_file
from stream_app.sinks.quarantine import S3QuarantineStore
from tests.contracts.failing import told

STORED = Path(__file__).parents[1] / "data/stored-before.zip"
SHARD = "shardId-000000000000"
BUCKET = "stream-app-123456789012-us-east-1"
SEEN_IDS = 256


@pytest.fixture(scope="module")
def stored() -> dict[str, bytes]:
    """Each file of the archive by its name."""
    with zipfile.ZipFile(STORED) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def objects(stored: dict[str, bytes], prefix: str) -> dict[str, bytes]:
    """The objects of the bucket below a prefix, by key."""
    return {name[3:]: body for name, body in stored.items() if name.startswith(f"s3/{prefix}")}


def totals(stored: dict[str, bytes]) -> dict[str, Any]:
    """The totals of the audit of that version."""
    found: dict[str, Any] = json.loads(stored["audit.json"])["total"]
    return found


def rows_of(stored: dict[str, bytes]) -> list[dict[str, Any]]:
    """The rows of the only segment."""
    [body] = objects(stored, "events/").values()
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(io.BytesIO(body)).to_pylist()
    return rows


def test_a_snapshot_of_the_old_version_is_restored(stored: dict[str, bytes]) -> None:
    registry = event_loading.load_registry(dry_run=False)
    events = {name: codec.event for name, codec in registry.codecs.items()}
    [snapshot] = objects(stored, "state/").values()
    state, rows = ShardState(events, SEEN_IDS), rows_of(stored)
    state.restore(snapshot)
    fields = [field.name for field in registry.codecs["air_quality"].schema.fields]
    again = []
    for number, row in enumerate(rows[-500:]):
        body = {name: row[name] for name in fields if row.get(name) is not None}
        payload = json.dumps({**body, "event": "air_quality"}, default=datetime.isoformat).encode()
        again.append(
            Record(payload, row["station"], str(10**55 + number), int(row["arrived"].timestamp() * 1000))
        )
    result = process(again, registry, state, 1 << 20)
    assert len(result.repeated) == 500, Counter(failure.reason for failure in result.failed).most_common(3)


def test_a_manifest_and_its_file_are_readable(stored: dict[str, bytes]) -> None:
    [body] = objects(stored, "segments/").values()
    manifest = manifests.parse(body)
    assert manifest is not None
    assert (
        json.loads(body)["stored"]["air_quality"]["count"] == len(rows_of(stored)) == totals(stored)["stored"]
    )


def test_failures_are_listed_with_their_codes(
    stored: dict[str, bytes], aws: ClientFactory, tmp_path: Path
) -> None:
    aws("s3").create_bucket(Bucket=BUCKET)
    for key, body in objects(stored, "failures/").items():
        status = f"status={_status(stored, key)}"
        aws("s3").put_object(Bucket=BUCKET, Key=key, Body=body, Tagging=status)
    properties = tmp_path / "old.properties"
    given = ("applicationName = stream-app", "streamName = stream-app-events", "regionName = us-east-1")
    properties.write_text("\n".join((*given, f"app.bucket = {BUCKET}")))
    found = told(properties, "ls", "--since", "all")["failures"]
    assert Counter(failure["code"] for failure in found) == totals(stored)["parked"]
    assert {failure["status"] for failure in found} == {"open"}
    assert told(properties, "show", found[0]["sequence"])["payload"]


def _status(stored: dict[str, bytes], key: str) -> str:
    tags = json.loads(stored["metadata.json"])[key]["tags"]
    [status] = [str(tag["Value"]) for tag in tags if tag["Key"] == "status"]
    return status


def test_a_plan_is_readable_and_its_checksum_is_valid(stored: dict[str, bytes]) -> None:
    plan = plan_file.parse(stored["plan.json"])
    assert plan.items
    assert plan_file.with_digests(plan).id == plan.id


def test_the_correction_history_is_readable(stored: dict[str, bytes]) -> None:
    items = json.loads(stored["tables/stream-app-history.json"], object_hook=_binary)
    entries = [entry_of(item) for item in items]
    assert len(entries) == 26
    assert {entry.status for entry in entries} <= {"corrected", "manual", "open"}


def _binary(found: dict[str, Any]) -> Any:
    return base64.b64decode(found["b64"]) if set(found) == {"b64"} else found


def test_the_attempt_count_is_readable(stored: dict[str, bytes], aws: ClientFactory) -> None:
    aws("s3").create_bucket(Bucket=BUCKET)
    for key, body in objects(stored, "quarantine/").items():
        aws("s3").put_object(Bucket=BUCKET, Key=key, Body=body)
    assert S3QuarantineStore(aws("s3"), BUCKET, "stream-app").attempts(SHARD) is not None
