"""Profile by stage: wraps the functions of each stage with clocks, in the benchmark's child only.

Measures thread CPU time, so waiting for input does not count. The time of a stage excludes the stages that it calls.
Functions that a checkout does not have are skipped, and their time counts towards the caller.
"""

from __future__ import annotations

import functools
import importlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Module and attribute through which the function is looked up when called, and its stage.
POINTS = (
    ("stream_app.consumer.protocol.multilang", "_Connection.read", "read and protocol"),
    ("stream_app.consumer.protocol.multilang", "_Connection.write", "read and protocol"),
    ("stream_app.consumer.shard", "ShardConsumer._process_batch", "shard"),
    ("stream_app.consumer.shard", "ShardConsumer._close", "shard"),
    ("stream_app.consumer.shard", "Segmenter.cut", "cut into segments"),
    ("stream_app.consumer.shard", "unpacked_sizes", "sizes"),
    ("stream_app.consumer.protocol.batch_coalescer", "unpacked_bytes", "sizes"),
    ("stream_app.consumer.shard", "process_without", "pipeline"),
    ("stream_app.consumer.open_segment", "OpenSegment.add", "segment"),
    ("stream_app.consumer.quarantine.policy", "Quarantine.excluded", "quarantine"),
    ("stream_app.consumer.failing_code", "FailingCode.take", "failing code"),
    ("stream_app.consumer.quarantine.batch_timer", "BatchTimer.__enter__", "batch timer"),
    ("stream_app.consumer.quarantine.batch_timer", "BatchTimer.__exit__", "batch timer"),
    ("stream_app.pipeline.state.shard_state", "ShardState.effective_arrivals", "devices"),
    ("stream_app.pipeline.state.shard_state", "ShardState.split_at_expiry", "devices"),
    ("stream_app.pipeline.state.event_state", "EventState.look_up_devices", "devices"),
    ("stream_app.pipeline.flow", "with_identity", "repeats"),
    ("stream_app.pipeline.readers.fast_path", "scan_payloads", "scan of payloads"),
    ("stream_app.consumer.batch_summary", "BatchReporter.report", "summary and log"),
    ("stream_app.pipeline.flow", "decode", "decode"),
    ("stream_app.pipeline.flow", "resolve_schema", "schema resolution"),
    ("stream_app.pipeline.flow", "_checked", "account"),
    ("stream_app.pipeline.flow", "verify", "verify"),
    ("stream_app.pipeline.flow", "accept_rows", "repeats"),
    ("stream_app.pipeline.acceptance", "id_hashes", "repeats"),
    ("stream_app.pipeline.state.windows", "Windows.add", "windows"),
    ("stream_app.pipeline.flow", "calculate", "calculate"),
    ("stream_app.pipeline.sensor_checks", "SensorChecks.flag", "checks"),
    ("stream_app.pipeline.flow", "score_unflagged", "score"),
    ("stream_app.consumer.open_segment", "OpenSegment.closed", "segment"),
    ("stream_app.consumer.shard", "store", "segment"),
    ("stream_app.sinks.s3", "to_table", "Parquet: columns"),
    ("stream_app.sinks.s3", "encode", "Parquet: encode"),
    ("stream_app.sinks.s3", "rows_digest", "Parquet: digest"),
    ("stream_app.sinks.s3", "manifest", "manifest"),
    ("stream_app.sinks.s3", "put_exact", "put (a file here)"),
    ("stream_app.recovery.dead_letters", "messages", "dead letters"),
    ("stream_app.recovery.dead_letters", "send", "dead letters"),
    ("stream_app.app", "details", "alerts"),
    ("stream_app.app", "OutboxAlerts.add", "alerts"),
    ("stream_app.consumer.alerting.outbox", "Outbox.flush", "alerts"),
    ("stream_app.pipeline.state.shard_state", "ShardState.snapshot", "snapshot"),
    ("stream_app.consumer.snapshots", "S3Snapshots.save", "snapshot: compress, put"),
)


class Clocks:
    """CPU time by stage; counting starts after `warm` messages have been read."""

    def __init__(self, warm: int) -> None:
        self._warm, self._read = warm, 0
        self._spent: Counter[str] = Counter()
        self._calls: Counter[str] = Counter()
        self._stacks = threading.local()
        self._begun = time.process_time_ns()

    def install(self) -> None:
        """Wrap each function in POINTS that exists."""
        for module, attribute, stage in POINTS:
            try:
                owner: Any = importlib.import_module(module)
                *parts, name = attribute.split(".")
                for part in parts:
                    owner = getattr(owner, part)
                setattr(owner, name, self._clocked(getattr(owner, name), stage))
            except (ImportError, AttributeError):
                continue

    def _clocked(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        is_read = stage.startswith("read") and function.__name__ == "read"

        @functools.wraps(function)
        def clocked(*arguments: Any, **named: Any) -> Any:
            if is_read:
                self._count()
            stack = self._stack()
            stack.append(0)
            begun = time.thread_time_ns()
            try:
                return function(*arguments, **named)
            finally:
                spent = time.thread_time_ns() - begun
                self._spent[stage] += spent - stack.pop()
                self._calls[stage] += 1
                if stack:
                    stack[-1] += spent

        return clocked

    def _stack(self) -> list[int]:
        if not hasattr(self._stacks, "open"):
            self._stacks.open = []
        stack: list[int] = self._stacks.open
        return stack

    def _count(self) -> None:
        self._read += 1
        if self._read == self._warm + 1:
            self._spent.clear()
            self._calls.clear()
            self._begun = time.process_time_ns()

    def write(self, path: Path) -> None:
        """Write the shares of the process's CPU time, including "other", in descending order."""
        total = time.process_time_ns() - self._begun
        spent = {**self._spent, "other": total - sum(self._spent.values())}
        profile = {
            "cpu_seconds": total / 1e9,
            "shares": {s: spent[s] / total for s in sorted(spent, key=spent.__getitem__, reverse=True)},
            "calls": dict(self._calls),
        }
        path.write_text(json.dumps(profile, indent=2))
