"""Entry points of the Lambda functions in infra/, also used by the local function runner."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING

from botocore.handlers import add_expect_header

from stream_app.app import clients
from stream_app.aws.clients import ClientFactory
from stream_app.errors import ConfigError, Problem
from stream_app.event_loading import load_registry
from stream_app.recovery.correct.factory import corrector_of
from stream_app.recovery.correct.history import HISTORY, History
from stream_app.recovery.correct.limits import ReadLimiter
from stream_app.recovery.correct.queue import (
    BatchResponse,
    Json,
    QueueDependencies,
    correct_batch,
    correct_dead_letters,
)
from stream_app.recovery.hydrate.batch import HydrateDependencies, handler
from stream_app.recovery.hydrate.trial import TrialFactory, pipeline_trials
from stream_app.settings import Settings
from stream_app.telemetry import log

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PARKING = "STREAM_APP_PARKING_QUEUE"
_NAME = "stream-app"
_THREADS = 16


@cache
def _client() -> ClientFactory:
    """The boto3 clients, reused by later invocations of the same execution environment."""
    return clients(os.environ)


@cache
def _settings() -> Settings:
    """Load the settings from the environment.

    A Lambda function has no properties file. Raises ConfigError.
    """
    given = {"applicationName": _NAME, "streamName": _NAME}
    settings = Settings.load(os.environ, given)
    if not settings.bucket:
        raise ConfigError(
            [Problem("STREAM_APP_BUCKET is not set", "set it to the bucket of the failure store")]
        )
    return settings


@cache
def _trial_factory() -> TrialFactory:
    """Load the event types; only dead letters that name a range of records need them."""
    settings = _settings()
    return pipeline_trials(
        load_registry(dry_run=False), seen_ids=settings.seen_ids, max_bytes=settings.max_record_bytes
    )


@cache
def _hydrate() -> Callable[[Json, object], dict[str, list[dict[str, str]]]]:
    client, settings = _client(), _settings()
    log.configure(settings.log_level)
    return handler(
        HydrateDependencies(
            kinesis=client("kinesis"),
            s3=_without_expect_header(client("s3")),
            bucket=settings.bucket,
            sqs=client("sqs"),
            parking=os.environ.get(PARKING, ""),
            application=settings.application,
            trial_factory=_trial_factory,
            threads=ThreadPoolExecutor(_THREADS, thread_name_prefix="hydrate"),
            emit=_emit,
            note=_note,
        )
    )


def _without_expect_header(s3: S3Client) -> S3Client:
    """Remove the `Expect: 100-continue` header from uploads.

    Failure objects are small, and the header costs a round trip for each.
    """
    s3.meta.events.unregister("before-call.s3", add_expect_header)
    return s3


def hydrate(event: Json, context: object) -> dict[str, list[dict[str, str]]]:
    """Store the dead letters of an SQS, SNS or S3 event with their payloads on S3.

    See `recovery.hydrate`.
    """
    return _hydrate()(event, context)


def _emit(line: str) -> None:
    """Write metrics to stderr, like the log; stdout may carry a protocol."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _note(event: str, level: str = "info", **values: object) -> None:
    getattr(log.get(), level)(event, **values)


CORRECTIONS = "STREAM_APP_CORRECTIONS_QUEUE"
CORRECTIONS_DEAD = "STREAM_APP_CORRECTIONS_DEAD_QUEUE"
MANUAL = "STREAM_APP_MANUAL_QUEUE"
PER_SECOND = "STREAM_APP_CORRECTIONS_PER_SECOND"
_BURST = 5.0  # GetRecords calls that a shard accepts per second


def correct(event: Json, _context: object) -> BatchResponse:
    """Process the correction requests of one SQS event; see `recovery.correct`."""
    return correct_batch(event, _queue_dependencies(CORRECTIONS))


def correct_dead(event: Json, _context: object) -> BatchResponse:
    """Make a last attempt at the messages of the corrections' dead-letter queue."""
    return correct_dead_letters(event, _queue_dependencies(CORRECTIONS_DEAD))


@cache
def _queue_dependencies(queue: str) -> QueueDependencies:
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
        history=history,
        work=work.correct_all,
        queue=os.environ[queue],
        manual=os.environ[MANUAL],
        reads=ReadLimiter(rate, max(1.0, min(_BURST, rate)), time.monotonic, time.sleep),
        report=lambda event, values: _note(event, **values),
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
