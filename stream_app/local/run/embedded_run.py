"""`stream-app run`: everything on this machine, from device to storage, until all that was sent is accounted for."""

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
from stream_app.ingest.devices import event_of, play
from stream_app.ingest.faults import SEED
from stream_app.ingest.producer import Sent, Via
from stream_app.local.daemon_thread import DaemonThread
from stream_app.local.embedded import Embedded, MakeClient, embedded
from stream_app.local.leases import write_leases
from stream_app.local.run import chaos
from stream_app.local.run.limits import Sampler
from stream_app.local.run.report import Report
from stream_app.local.run.second_act import SecondAct, second_act
from stream_app.local.run.stage import Stage
from stream_app.local.run.tally import report_of
from stream_app.local.run.tracker import Tracker
from stream_app.local.run.waiting import until_stored
from stream_app.recovery.audit import checkpoints
from stream_app.recovery.audit.proof import Audit, audit
from stream_app.resources import shipped
from stream_app.settings import Settings
from stream_app.warm import warm_detectors

_WORKER = "stream-app-local"
_LOOK = 0.25  # seconds between looks at how far it has come
_READY_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Options:
    """What to run. `rate` in records a second (None: as `speed` says), `acts` to rehearse on the way."""

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
    acts: tuple[chaos.Act, ...] = ()
    application: str = "stream-app"
    folder: Path = Path(".stream-app")


AfterRun = Callable[[Embedded, Audit], None]


def run(
    options: Options,
    make_client: MakeClient,
    stage: Stage,
    stop: threading.Event,
    after: AfterRun | None = None,
) -> Report:
    """Run it all, and say what became of everything sent; `stop` ends it early, in order.

    `after` is called before the embedded AWS goes away. A run that fails after everything was sent has a report that
    says why. Raises ConfigError, and FatalError when a part fails before that.
    """
    started = time.monotonic()
    # What a user gave that is wrong is told before anything is started: a module, a schema, the data.
    registry = load_registry()
    stage.note("looking at the data")
    data = dataset(options.data)
    event_of(data, {name: codec.event for name, codec in registry.codecs.items()}, options.event)
    stage.note("compiling the detectors, once")
    warm_detectors(registry)
    folder = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        aws = stack.enter_context(
            embedded(
                make_client,
                application=options.application,
                shards=options.shards,
                folder=folder,
                note=stage.note,
            )
        )
        sampler = stack.enter_context(Sampler(aws.pids))
        daemon = stack.enter_context(_daemon(options, aws, stage.tracker, folder))
        sampler.watch("daemon", lambda: daemon.pid)
        sampler.watch("host", lambda: daemon.host)
        _wait_ready(options, daemon, stage, stop)
        sampler.mark("playing")
        sent = _play(options, data, aws, daemon, stage, stop)
        waiting = sent.sent - stage.tracker.records
        act, error = SecondAct(), None
        try:
            if not stop.is_set():
                until_stored(aws, sent, daemon, stage, stop)
                sampler.mark("stored")
            if options.faults and not stop.is_set():
                stage.note("second act: repairing one class of failures and sending it again")
                act = second_act(aws, Settings.load({}, aws.settings()), stop)
                until_stored(aws, sent, daemon, stage, stop)
        except FatalError as raised:  # the report says it, with all that is known by then
            stage.note(f"failed: {raised}")
            error = str(raised)
        stage.note("stopping the consumer")
        daemon.stop()
        found = _audit(aws, stage)
        if after is not None and error is None:
            after(aws, found)
        return report_of(
            found,
            sent,
            act,
            stage.tracker,
            client=aws.client,
            bucket=aws.outputs["BucketName"],
            application=options.application,
            history=aws.outputs["HistoryTableName"],
            anomalies_queue=aws.outputs["AnomaliesQueueUrl"],
            shards=options.shards,
            elapsed_s=time.monotonic() - started,
            limit=sampler.limit(sent.sent, waiting),
            memory=sampler.memory(),
            restarts=daemon.restarts,
            check_expected=options.faults,
            error=error,
            waiting=None if error is None else stage.progress.to_json(),
        )


@contextmanager
def _daemon(options: Options, aws: Embedded, tracker: Tracker, folder: Path) -> Iterator[DaemonThread]:
    stream = aws.outputs["StreamName"]
    dynamodb, kinesis = aws.client("dynamodb"), aws.client("kinesis")
    write_leases(dynamodb, kinesis, application=aws.application, stream=stream, worker=_WORKER)
    overrides: dict[str, str | None] = {
        **aws.settings(),
        "workerId": _WORKER,
        "app.segment_seconds": str(options.segment_seconds),
        "app.checkpoint_seconds": str(options.segment_seconds),
    }
    with (folder / "daemon.log").open("wb") as log:
        properties = shipped("properties") / "local.properties"
        thread = DaemonThread(
            properties,
            environ=aws.environ,
            overrides=overrides,
            on_line=tracker.line,
            log=log,
            restarts=Restarts(limit=5, base_seconds=0.2),
            before=partial(release, dynamodb, aws.application),
            shards=options.shards,
        )
        with thread:
            yield thread


def _wait_ready(options: Options, daemon: DaemonThread, stage: Stage, stop: threading.Event) -> None:
    stage.note("waiting for the shards")
    deadline = time.monotonic() + _READY_SECONDS
    while stage.tracker.ready_s(options.shards) is None and not stop.wait(_LOOK):
        daemon.check()
        if time.monotonic() > deadline:
            raise FatalError(f"not all shards were ready within {_READY_SECONDS:.0f} s: see the daemon's log")


def _play(
    options: Options, data: Dataset, aws: Embedded, daemon: DaemonThread, stage: Stage, stop: threading.Event
) -> Sent:
    """Devices in a thread; here their progress is followed, and the acts are performed."""
    stage.note("playing")
    acts = list(options.acts)
    halt = threading.Event()

    def progress(count: int) -> None:
        stage.sent = count

    with ThreadPoolExecutor(1, thread_name_prefix="devices") as pool:
        playing: Future[Sent] = pool.submit(
            play,
            data,
            events_client=aws.client("events"),
            kinesis_client=aws.client("kinesis"),
            bus=aws.outputs["BusName"],
            stream=aws.outputs["StreamName"],
            rate=options.rate,
            speed=options.speed,
            via=options.via,
            seed=options.seed,
            faults=options.faults,
            event=options.event,
            first=options.first,
            progress=progress,
            stop=halt,
        )
        try:
            while not playing.done():
                if stop.wait(_LOOK):
                    break
                daemon.check()
                acts = _perform(acts, stage, aws, daemon)
        finally:
            if not playing.done():
                halt.set()
        return playing.result()


def _perform(acts: list[chaos.Act], stage: Stage, aws: Embedded, daemon: DaemonThread) -> list[chaos.Act]:
    if not acts or stage.sent < acts[0].sent:
        return acts
    stage.note(chaos.perform(acts[0], aws.client("kinesis"), aws.outputs["StreamName"], daemon.pid))
    return acts[1:]


def _audit(aws: Embedded, stage: Stage) -> Audit:
    stage.note("auditing")
    committed = checkpoints.read(aws.client("dynamodb"), aws.application)
    return audit(
        kinesis=aws.client("kinesis"),
        s3=aws.client("s3"),
        stream=aws.outputs["StreamName"],
        bucket=aws.outputs["BucketName"],
        consumer=aws.application,
        checkpoints=committed,
    )
