"""A user's tests of the event type."""

from __future__ import annotations

import os
from typing import Any

from stream_app.aws.clients import ClientFactory
from stream_app.testing import CheckError, Ran, check, outcomes, record, run, spawn
from tests.typing.user_event import EVENT

SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "tank",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "tank", "type": "string"},
        {"name": "time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "level", "type": ["null", "double"], "default": None},
    ],
}
ROWS: list[dict[str, Any]] = [
    {"id": str(n), "tank": "ab"[n % 2], "time": 1_767_225_600_000 + n, "level": 5.0 * n} for n in range(12)
]


def shares() -> list[float]:
    """Run the rows through the pipeline, and return one calculated column."""
    ran: Ran = run(EVENT, ROWS, schema=SCHEMA)
    return [float(share) for share in ran.passed["share"]]


def codes() -> list[str]:
    """Return the failure codes of raw records."""
    found = outcomes([b"[1, 2]", b"{}"], event=EVENT, schemas=[SCHEMA])
    return [str(item["code"]) for items in found for item in items]


def dependence() -> tuple[int, str | None] | None:
    """Check that results do not depend on batches; return where they do."""
    try:
        check(EVENT, ROWS, schema=SCHEMA)
    except CheckError as error:
        return error.row, error.column
    return None


def drive(command: list[str]) -> list[tuple[str | None, int | None]]:
    """Drive a consumer as KCL does, and return its checkpoints."""
    player, process = spawn(command, os.environ)
    player.initialize("shardId-000000000000")
    player.records([record(b"{}", at) for at in range(3)])
    player.shard_ended()
    player.close()
    assert process.wait(10) == 0
    return player.checkpoints


def stream_name(aws: ClientFactory, stream: str) -> str:
    """Use the fixtures `aws` and `stream` as a test does."""
    summary = aws("kinesis").describe_stream_summary(StreamName=stream)
    return summary["StreamDescriptionSummary"]["StreamName"]
