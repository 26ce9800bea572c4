"""`stream-app run`: runs the whole application on this machine until every record sent is accounted for."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stream_app.daemon.leader_lock import release
from stream_app.daemon.supervisor import Restarts
from stream_app.errors import FatalError
from stream_app.event_loading import load_registry
from stream_app.ingest.datasets import Dataset, dataset
from stream_app.ingest.devices import PlayOptions, event_of, play
from stream_app.ingest.faults import SEED
from stream_app.ingest.producer import Sent
from stream_app.ingest.publish_options import Destination, PublishOptions, Via
from stream_app.local.daemon_thread import DaemonThread
from stream_app.local.embedded import Embedded, MakeClient, embedded
from stream_app.local.leases import write_leases
from stream_app.local.run import chaos
from stream_app.local.run.build_report import Outcome, build_report
from stream_app.local.run.redrive_demo import RedriveResult, redrive_repaired
from stream_app.local.run.report import Report
from stream_app.local.run.sampler import Sampler
from stream_app.local.run.status import RunStatus
from stream_app.local.run.waiting import wait_until_stored
from stream_app.recovery.audit import checkpoints
from stream_app.recovery.audit.proof import Audit, audit
from stream_app.resources import shipped
from stream_app.settings import Settings
from stream_app.warm import warm_detectors

_WORKER = "stream-app-local"
_POLL_SECONDS = 0.25
_READY_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a run.

    `rate` is in records per second (None: unlimited, see `speed`); `first` limits the number of readings. `actions`
    are crashes and reshards to perform while records are sent.
    """

    data: str = "beijing-winter"
    shards: int = 4
    rate: float | None = 200.0
    speed: float = math.inf
    via: Via = "bus"
    seed: int = SEED
    faults: bool = True
    first: int | None = None
    event: str | None = None
    segment_seconds: int = 5
    actions: tuple[chaos.Action, ...] = ()
    application: str = "stream-app"
    folder: Path = Path(".stream-app")


AfterRun = Callable[[Embedded, Audit], None]


def run(
    options: Options,
    make_client: MakeClient,
    status: RunStatus,
    stop: threading.Event,
    after: AfterRun | None = None,
) -> Report:
    """Run everything and report the outcome of every record sent. Setting `stop` ends the run early.

    `after` is called before the embedded AWS stops. A run that fails after all records were sent returns a report
    with an error. Raises ConfigError, and FatalError if a part fails before that.
    """
    started = time.monotonic()
    data = _prepare(options, status)
    with ExitStack() as stack:
        aws = stack.enter_context(_embedded(options, make_client, status))
        sampler = stack.enter_context(Sampler(aws.pids))
        daemon = stack.enter_context(_daemon(options, aws, status))
        sampler.watch("daemon", lambda: daemon.pid)
        sampler.watch("host", lambda: daemon.host)
        steps = _Steps(options, aws, daemon, sampler, status, stop)
        steps.wait_ready()
        sent = steps.play(data)
        waiting = sent.sent - status.tracker.records
        redrive, error = steps.finish(sent)
        status.note("stopping the consumer")
        daemon.stop()
        audited = _audit(aws, status)
        if after is not None and error is None:
            after(aws, audited)
        outcome = Outcome(
            audited,
            sent,
            redrive,
            status.tracker,
            shards=options.shards,
            elapsed_s=time.monotonic() - started,
            limit=sampler.limit(sent.sent, waiting),
            memory=sampler.memory(),
            restarts=daemon.restarts,
            check_expected=options.faults,
            error=error,
            waiting=None if error is None else {**status.progress.to_json()},
        )
        return build_report(outcome, aws)


def _prepare(options: Options, status: RunStatus) -> Dataset:
    """Check the user's modules, schemas and data before anything is started. Raises ConfigError."""
    registry = load_registry()
    status.note("reading the data set")
    data = dataset(options.data)
    event_of(data, {name: codec.event for name, codec in registry.codecs.items()}, options.event)
    status.note("compiling the detectors")
    warm_detectors(registry)
    options.folder.mkdir(parents=True, exist_ok=True)
    return data


@contextmanager
def _embedded(options: Options, make_client: MakeClient, status: RunStatus) -> Iterator[Embedded]:
    with embedded(
        make_client,
        application=options.application,
        shards=options.shards,
        folder=options.folder,
        note=status.note,
    ) as aws:
        yield aws


@contextmanager
def _daemon(options: Options, aws: Embedded, status: RunStatus) -> Iterator[DaemonThread]:
    stream = aws.outputs["StreamName"]
    dynamodb, kinesis = aws.client("dynamodb"), aws.client("kinesis")
    write_leases(dynamodb, kinesis, application=aws.application, stream=stream, worker=_WORKER)
    overrides: dict[str, str | None] = {
        **aws.settings(),
        "workerId": _WORKER,
        "app.segment_seconds": str(options.segment_seconds),
        "app.checkpoint_seconds": str(options.segment_seconds),
    }
    with (options.folder / "daemon.log").open("wb") as log:
        thread = DaemonThread(
            shipped("properties") / "local.properties",
            environ=aws.environ,
            overrides=overrides,
            on_line=status.tracker.line,
            log=log,
            restarts=Restarts(limit=5, base_seconds=0.2),
            before=partial(release, dynamodb, aws.application),
            shards=options.shards,
        )
        with thread:
            yield thread


@dataclass(slots=True)
class _Steps:
    """The steps of a run against a started embedded AWS and daemon."""

    options: Options
    aws: Embedded
    daemon: DaemonThread
    sampler: Sampler
    status: RunStatus
    stop: threading.Event

    def wait_ready(self) -> None:
        """Wait until the consumer reads every shard. Raises FatalError after two minutes."""
        self.status.note("waiting for the shards")
        deadline = time.monotonic() + _READY_SECONDS
        while self.status.tracker.ready_s(self.options.shards) is None and not self.stop.wait(_POLL_SECONDS):
            self.daemon.check()
            if time.monotonic() > deadline:
                raise FatalError(
                    f"not all shards were ready within {_READY_SECONDS:.0f} s: see the daemon's log"
                )
        self.sampler.mark("playing")

    def play(self, data: Dataset) -> Sent:
        """Send the data set from another thread, while checking the daemon and performing the chaos actions."""
        self.status.note("playing")
        actions = list(self.options.actions)
        halt = threading.Event()
        with ThreadPoolExecutor(1, thread_name_prefix="devices") as pool:
            playing: Future[Sent] = pool.submit(self._play, data, halt)
            try:
                while not playing.done():
                    if self.stop.wait(_POLL_SECONDS):
                        break
                    self.daemon.check()
                    if actions and self.status.sent >= actions[0].sent:
                        self._perform(actions.pop(0))
            finally:
                if not playing.done():
                    halt.set()
            return playing.result()

    def _play(self, data: Dataset, halt: threading.Event) -> Sent:
        options, aws = self.options, self.aws
        bus, stream = aws.outputs["BusName"], aws.outputs["StreamName"]
        return play(
            data,
            Destination(aws.client("events"), aws.client("kinesis"), bus, stream),
            PlayOptions(seed=options.seed, faults=options.faults, event=options.event, first=options.first),
            PublishOptions(
                via=options.via,
                rate=options.rate,
                speed=options.speed,
                progress=self._set_sent,
                stop=halt,
            ),
        )

    def _set_sent(self, count: int) -> None:
        self.status.sent = count

    def _perform(self, action: chaos.Action) -> None:
        kinesis, stream = self.aws.client("kinesis"), self.aws.outputs["StreamName"]
        self.status.note(chaos.perform(action, kinesis, stream, self.daemon.pid))

    def finish(self, sent: Sent) -> tuple[RedriveResult, str | None]:
        """Wait until everything is stored, and redrive one class of failures. Returns the error, if there is one."""
        redrive = RedriveResult()
        try:
            if not self.stop.is_set():
                self._wait_until_stored(sent)
                self.sampler.mark("stored")
            if self.options.faults and not self.stop.is_set():
                self.status.note("redriving one class of failures after repairing it")
                redrive = redrive_repaired(self.aws, Settings.load({}, self.aws.settings()), self.stop)
                self._wait_until_stored(sent)
        except FatalError as raised:  # Reported together with everything that is known by then.
            self.status.note(f"failed: {raised}")
            return redrive, str(raised)
        return redrive, None

    def _wait_until_stored(self, sent: Sent) -> None:
        wait_until_stored(self.aws, sent, self.daemon, self.status, self.stop)


def _audit(aws: Embedded, status: RunStatus) -> Audit:
    status.note("auditing")
    committed = checkpoints.read(aws.client("dynamodb"), aws.application)
    return audit(
        kinesis=aws.client("kinesis"),
        s3=aws.client("s3"),
        stream=aws.outputs["StreamName"],
        bucket=aws.outputs["BucketName"],
        consumer=aws.application,
        checkpoints=committed,
    )
