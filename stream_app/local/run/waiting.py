"""Waits until all queues are empty and every shard is committed to its end, as long as there is progress."""

from __future__ import annotations

import threading

from stream_app.errors import FatalError
from stream_app.ingest.producer import Sent
from stream_app.local.daemon_thread import DaemonThread
from stream_app.local.embedded import Embedded
from stream_app.local.run import drain
from stream_app.local.run.status import RunStatus
from stream_app.local.run.tracker import Tracker
from stream_app.recovery.audit import checkpoints
from stream_app.recovery.correct.history import count_corrections

_POLL_SECONDS = 0.25
# Counting corrections reads their whole history, so they are counted only after this time without other progress.
_COUNT_SECONDS = 5.0
# Queues that must become empty, with the stack output of their URL.
_QUEUES = {
    "devices": "DevicesQueueUrl",
    "dead letters": "DeadLetterQueueUrl",
    "corrections": "CorrectionsQueueUrl",
}
# Queues that keep their messages; new messages in them are progress.
_OTHERS = {
    "manual review": "ManualQueueUrl",
    "dead letters that could not be stored": "DeadLettersDeadQueueUrl",
    "devices' dead letters": "DevicesDeadQueueUrl",
}


def wait_until_stored(
    aws: Embedded, sent: Sent, daemon: DaemonThread, status: RunStatus, stop: threading.Event
) -> None:
    """Wait until no work is outstanding or `stop` is set. Raises FatalError if there is no more progress."""
    status.note("waiting until everything is stored")
    progress, drained = status.progress, 0
    progress.restart()
    while not stop.wait(_POLL_SECONDS):
        daemon.check()
        remaining = _remaining(aws)
        drained = drained + 1 if remaining.is_drained else 0
        if drained == 2:  # Twice in a row, because a message that moves between queues is in neither of them.
            return
        progress.update(remaining, _processed(status.tracker))
        if progress.idle > _COUNT_SECONDS:
            progress.update(remaining, _corrected(aws))
        if progress.stuck:
            raise FatalError(
                f"no progress for {progress.idle:.0f} s: {progress}; {sent.sent} records were sent, "
                f"{status.tracker.records} were processed"
            )


def _remaining(aws: Embedded) -> drain.Remaining:
    sqs = aws.client("sqs")
    committed = checkpoints.read(aws.client("dynamodb"), aws.application)
    return drain.Remaining(
        {name: drain.depth(sqs, aws.outputs[output]) for name, output in _QUEUES.items()},
        drain.uncommitted_shards(aws.client("kinesis"), aws.outputs["StreamName"], committed),
        {name: drain.depth(sqs, aws.outputs[output]) for name, output in _OTHERS.items()},
    )


def _processed(tracker: Tracker) -> dict[str, int]:
    return {
        "records processed": tracker.records,
        "segments stored": tracker.segments,
        "records committed": tracker.committed,
    }


def _corrected(aws: Embedded) -> dict[str, int]:
    found = count_corrections(aws.client("dynamodb"), aws.outputs["HistoryTableName"], aws.application)
    return {"corrections made": found["corrected"], "corrections refused": found["manual"]}
