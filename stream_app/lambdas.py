"""Entry points of the Lambda functions in infra/; the local function runner calls the same ones."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from botocore.handlers import add_expect_header

from stream_app.app import Client, clients
from stream_app.errors import ConfigError, Problem
from stream_app.event_loading import load_registry
from stream_app.recovery.correct.history import HISTORY, History
from stream_app.recovery.correct.limits import Reads
from stream_app.recovery.correct.queue import QueueDependencies, correct_batch, dead_batch
from stream_app.recovery.correct.work import corrector_of
from stream_app.recovery.hydrate.batch import HydrateDependencies, handler
from stream_app.recovery.hydrate.narrow import Judge, pipeline_judge
from stream_app.settings import Settings
from stream_app.telemetry import log

PARKING = "STREAM_APP_PARKING_QUEUE"
_NAME = "stream-app"
_THREADS = 16


@cache
def _client() -> Client:
    """Made once, while the function stays warm."""
    return clients(os.environ)


@cache
def _settings() -> Settings:
    """What the environment sets; a function has no properties file. Raises ConfigError."""
    given = {"applicationName": _NAME, "streamName": _NAME}
    settings = Settings.load(os.environ, given)
    if not settings.bucket:
        raise ConfigError([Problem("STREAM_APP_BUCKET is not set", "set it to the failure store's bucket")])
    return settings


@cache
def _judge() -> Judge:
    """Loads the event types; only ranges need it."""
    settings = _settings()
    return pipeline_judge(
        load_registry(dry_run=False), seen_ids=settings.seen_ids, max_bytes=settings.max_record_bytes
    )


@cache
def _hydrate() -> Callable[[Mapping[str, Any], Any], dict[str, list[dict[str, str]]]]:
    client, settings = _client(), _settings()
    log.configure(settings.log_level)
    return handler(
        HydrateDependencies(
            kinesis=client("kinesis"),
            s3=_unasked(client("s3")),
            bucket=settings.bucket,
            sqs=client("sqs"),
            parking=os.environ.get(PARKING, ""),
            application=settings.application,
            judge=_judge,
            threads=ThreadPoolExecutor(_THREADS, thread_name_prefix="hydrate"),
            emit=_emit,
            note=_note,
        )
    )


def _unasked(s3: Any) -> Any:
    """Puts without asking first whether they are welcome (Expect: 100-continue): a failure's object is small, and
    the question costs a round trip for each."""
    s3.meta.events.unregister("before-call.s3", add_expect_header)
    return s3


def hydrate(event: Mapping[str, Any], context: Any) -> dict[str, list[dict[str, str]]]:
    """Dead letters of an SQS, SNS or S3 event become full payloads on S3; see `recovery.hydrate`."""
    return _hydrate()(event, context)


def _emit(line: str) -> None:
    """Metrics go where the log goes; not to stdout, which may be somebody's protocol."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _note(what: str, level: str = "info", **values: Any) -> None:
    getattr(log.get(), level)(what, **values)


CORRECTIONS = "STREAM_APP_CORRECTIONS_QUEUE"
CORRECTIONS_DEAD = "STREAM_APP_CORRECTIONS_DEAD_QUEUE"
MANUAL = "STREAM_APP_MANUAL_QUEUE"
PER_SECOND = "STREAM_APP_CORRECTIONS_PER_SECOND"
_BURST = 5.0  # as many reads as a shard answers in a second


def correct(event: Mapping[str, Any], _context: Any) -> dict[str, list[dict[str, str]]]:
    """Requests of one SQS event are answered with corrections, or put before people; see `recovery.correct`."""
    return correct_batch(event, _desk(CORRECTIONS))


def correct_dead(event: Mapping[str, Any], _context: Any) -> dict[str, list[dict[str, str]]]:
    """The final try for what landed in the dead letter queue of the corrections."""
    return dead_batch(event, _desk(CORRECTIONS_DEAD))


@cache
def _desk(queue: str) -> QueueDependencies:
    names = (HISTORY, CORRECTIONS, CORRECTIONS_DEAD, MANUAL)
    empty = [name for name in names if not os.environ.get(name)]
    if empty:
        raise ConfigError(
            [Problem(f"{name} is not set", "set it as infra/corrections.yaml does") for name in empty]
        )
    client, settings = _client(), _settings()
    log.configure(settings.log_level)
    history = History(client("dynamodb"), os.environ[HISTORY], _now_ms)
    rate = float(os.environ.get(PER_SECOND, "1"))
    work = corrector_of(settings, client, load_registry(dry_run=False), history, _now_ms, rate)
    return QueueDependencies(
        sqs=client("sqs"),
        s3=client("s3"),
        bucket=settings.bucket,
        consumer=settings.application,
        book=history,
        work=work.correct_all,
        queue=os.environ[queue],
        manual=os.environ[MANUAL],
        reads=Reads(rate, max(1.0, min(_BURST, rate)), time.monotonic, time.sleep),
        report=lambda what, values: _note(what, **values),
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
