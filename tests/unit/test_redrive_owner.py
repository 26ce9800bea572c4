"""Owners: only processes that are known to have ended are reported dead."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from stream_app.recovery.redrive.ledger.owner import is_dead, new_owner

CODE = (
    "from stream_app.recovery.redrive.ledger.owner import new_owner; print(new_owner(), flush=True); input()"
)


def test_a_killed_process_is_reported_dead_immediately_and_not_before() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        owner = process.stdout.readline().strip()
        assert not is_dead(owner)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert is_dead(owner)  # also before its parent has reaped it
    assert is_dead(owner)


def test_this_process_is_alive_and_owner_names_are_unique() -> None:
    one, other = new_owner(), new_owner()
    assert one != other
    assert not is_dead(one)


def test_a_reused_process_id_with_another_start_time_is_dead() -> None:
    here, pid, started, rest = new_owner().rsplit("/", 3)
    assert is_dead(f"{here}/{pid}/{int(started) - 1}/{rest}")


@pytest.mark.parametrize("owner", ["", "-/1/2/x", "one", "other-boot+pid:[1]/1/2/x", "-/x/y/z"])
def test_owners_on_other_machines_are_not_reported_dead(owner: str) -> None:
    assert not is_dead(owner)
