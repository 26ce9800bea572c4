"""Deciding whether a restart lets the failed shards make progress."""

from __future__ import annotations

from typing import Any

import pytest

from stream_app.daemon.crash_report import CrashReport

FAILED = {"source": "kcl", "event": "child_silent", "shard": "a"}


def app(event: str, shard: str = "a", **more: Any) -> dict[str, Any]:
    return {"source": "app", "event": event, "shard": shard, **more}


def recovering(*lines: dict[str, Any]) -> bool:
    report = CrashReport()
    for line in lines:
        report.see(line)
    return report.recovering


@pytest.mark.parametrize(("attempt", "further"), [(1, True), (2, True), (3, False), (9, False)])
def test_attempts_before_isolation_justify_a_restart(attempt: int, further: bool) -> None:
    assert recovering(app("attempt", attempt=attempt), FAILED) is further


@pytest.mark.parametrize("event", ["checkpoint", "record_quarantined"])
def test_progress_justifies_a_restart(event: str) -> None:
    assert recovering(app("attempt", attempt=3), app(event), FAILED)
    assert not recovering(app("attempt", attempt=3), app(event, "b"), FAILED)


def test_unknown_shards_and_exits_without_a_failed_child_are_not_recovering() -> None:
    assert not recovering(FAILED)
    assert not recovering(app("attempt", attempt=1))
    assert not recovering(app("attempt", attempt=1), FAILED, {**FAILED, "shard": "b"})


def test_an_orderly_exit_is_not_a_failure() -> None:
    exited = {"source": "kcl", "event": "child_exited", "shard": "a", "code": 0}
    assert not recovering(app("attempt", attempt=1), exited)
    assert recovering(app("attempt", attempt=1), {**exited, "code": 137})
