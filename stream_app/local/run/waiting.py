"""Waits until queues are empty and every shard is committed to its end, as long as something moves."""

from __future__ import annotations

import threading

from stream_app.errors import FatalError
from stream_app.ingest.producer import Sent
from stream_app.local.daemon_thread import DaemonThread
from stream_app.local.embedded import Embedded
from stream_app.local.run import drain
from stream_app.local.run.stage import Stage
from stream_app.local.run.tracker import Tracker
from stream_app.recovery.audit import checkpoints
from stream_app.recovery.correct.history import counts

_LOOK = 0.25  # seconds between looks
# Corrections are counted by reading their whole history, so only where nothing else has moved for so many seconds.
_COUNT_SECONDS = 5.0
# Queues that must be empty in the end, by the outputs that hold their URLs.
_QUEUES = {
    "devices": "DevicesQueueUrl",
    "dead letters": "DeadLetterQueueUrl",
    "corrections": "CorrectionsQueueUrl",
}
# Queues that people read: what comes into them is progress.
_OTHERS = {
    "manual review": "ManualQueueUrl",
    "dead letters that could not be stored": "DeadLettersDeadQueueUrl",
    "devices' dead letters": "DevicesDeadQueueUrl",
}


def until_stored(
    aws: Embedded, sent: Sent, daemon: DaemonThread, stage: Stage, stop: threading.Event
) -> None:
    """Wait until nothing is left to be done, or `stop`. Raises FatalError when nothing moves any more."""
    stage.note("waiting until everything is stored")
    progress, quiet = stage.progress, 0
    progress.begin()
    while not stop.wait(_LOOK):
        daemon.check()
        remaining = _remaining(aws)
        quiet = quiet + 1 if remaining.at_rest else 0
        if quiet == 2:  # twice in a row: a message between two queues is in neither
            return
        progress.see(remaining, _processed(stage.tracker))
        if progress.idle > _COUNT_SECONDS:
            progress.see(remaining, _corrected(aws))
        if progress.stuck:
            raise FatalError(
                f"nothing moved for {progress.idle:.0f} s: {progress}; {sent.sent} records were sent, "
                f"{stage.tracker.records} were processed"
            )


def _remaining(aws: Embedded) -> drain.Remaining:
    sqs = aws.client("sqs")
    committed = checkpoints.read(aws.client("dynamodb"), aws.application)
    return drain.Remaining(
        {name: drain.depth(sqs, aws.outputs[output]) for name, output in _QUEUES.items()},
        drain.behind(aws.client("kinesis"), aws.outputs["StreamName"], committed),
        {name: drain.depth(sqs, aws.outputs[output]) for name, output in _OTHERS.items()},
    )


def _processed(tracker: Tracker) -> dict[str, int]:
    return {
        "records processed": tracker.records,
        "segments stored": tracker.segments,
        "records committed": tracker.committed,
    }


def _corrected(aws: Embedded) -> dict[str, int]:
    found = counts(aws.client("dynamodb"), aws.outputs["HistoryTableName"], aws.application)
    return {"corrections made": found["corrected"], "corrections refused": found["manual"]}
