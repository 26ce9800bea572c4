"""A snapshot of the previous version is read and continues without a difference."""

from __future__ import annotations

from stream_app.pipeline.flow import process
from tests import samples, snapshots
from tests.support import outcomes_of

REGISTRY = snapshots.registry()


def test_a_snapshot_of_version_2_is_read_and_continues() -> None:
    restored, lived = snapshots.new_state(), snapshots.new_state()
    restored.restore(snapshots.VERSION_2.read_bytes())
    process(snapshots.records(0, snapshots.FIRST), REGISTRY, lived, samples.MAX_BYTES)
    later = snapshots.records(snapshots.FIRST, snapshots.FIRST + 300)
    first, second = (process(later, REGISTRY, state, samples.MAX_BYTES) for state in (restored, lived))
    assert outcomes_of(first) == outcomes_of(second)
