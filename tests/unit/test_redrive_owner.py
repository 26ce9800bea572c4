"""Who died is known to be dead, who lives is not taken for dead, and of whom nothing is known nothing is said."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from stream_app.recovery.redrive.ledger.owner import is_dead, new_owner

CODE = (
    "from stream_app.recovery.redrive.ledger.owner import new_owner; print(new_owner(), flush=True); input()"
)


def test_a_process_that_was_killed_is_dead_at_once_and_not_before() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        owner = process.stdout.readline().strip()
        assert not is_dead(owner)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert is_dead(owner)  # also before its parent has buried it
    assert is_dead(owner)


def test_we_live_and_every_applier_has_a_name_of_its_own() -> None:
    one, other = new_owner(), new_owner()
    assert one != other
    assert not is_dead(one)


def test_another_process_under_our_number_is_not_who_it_was() -> None:
    here, pid, started, rest = new_owner().rsplit("/", 3)
    assert is_dead(f"{here}/{pid}/{int(started) - 1}/{rest}")


@pytest.mark.parametrize("owner", ["", "-/1/2/x", "one", "other-boot+pid:[1]/1/2/x", "-/x/y/z"])
def test_of_other_machines_nobody_knows(owner: str) -> None:
    assert not is_dead(owner)
