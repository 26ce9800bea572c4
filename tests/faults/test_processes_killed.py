"""Processes killed or stopped while records arrive: stored data equals that of an undisturbed run.

The real KCL daemon under `stream-app daemon`, the real embedded AWS, real children: forks of the shard host, or each
by itself.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from stream_app import app
from stream_app.aws import objects
from stream_app.consumer.protocol.multilang import serve
from stream_app.consumer.shard import ShardConsumer
from stream_app.event_loading import load_registry
from stream_app.ingest.devices import PlayOptions, play
from stream_app.ingest.producer import Sent
from stream_app.ingest.publish_options import Destination, PublishOptions
from stream_app.local.embedded import Embedded, embedded
from stream_app.local.leases import write_leases
from stream_app.local.run import drain
from stream_app.local.run.report import unexpected
from stream_app.recovery.audit import checkpoints
from stream_app.recovery.audit.proof import audit
from stream_app.recovery.stream.read import pages, shards, user_records
from stream_app.resources import shipped
from stream_app.settings import Settings, read_properties
from stream_app.sinks.s3 import SEGMENTS
from stream_app.testing import Played
from tests.e2e.test_run import stored
from tests.faults import consuming as it
from tests.faults.consuming import Act, Consumer

pytestmark = pytest.mark.timeout(240)
SHARDS, READINGS, RATE = 3, 1_800, 120.0
WORKER = "the-one"
HOST = pytest.mark.parametrize("host", ["true", "false"], ids=["hosted", "alone"])


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    folder = tmp_path_factory.mktemp("aws")
    with embedded(app.clients, application="faults", shards=1, folder=folder) as running:
        yield running


@dataclass
class Scene:
    """A stream of its own and its consumer. `seen` is what the bucket held before."""

    aws: Embedded
    name: str
    consumer: Consumer
    properties: dict[str, str]
    seen: set[str]
    sent: int = 0

    @property
    def settings(self) -> Settings:
        return Settings.load({}, self.properties)

    def _reached(self, due: int, playing: Future[Sent]) -> bool:
        return self.sent >= due or playing.done()

    def disturb(self, acts: Sequence[Act], rng: random.Random) -> Sent:
        """Devices send; at seeded random moments the acts happen, in this order."""
        with ThreadPoolExecutor(1) as pool:
            playing = pool.submit(self._play)
            for act, moment in zip(acts, it.moments(rng, len(acts), READINGS), strict=True):
                it.wait(partial(self._reached, moment, playing))
                act(self.consumer, rng)
            return playing.result()

    def _play(self) -> Sent:
        def progress(count: int) -> None:
            self.sent = count

        return play(
            "beijing-winter",
            Destination(
                self.aws.client("events"), self.aws.client("kinesis"), self.aws.outputs["BusName"], self.name
            ),
            PlayOptions(first=READINGS),
            PublishOptions(via="stream", rate=RATE, progress=progress),
        )

    def drain(self) -> None:
        """Until every shard is committed to its end, and what failed is in the failure store."""
        sqs, letters = self.aws.client("sqs"), self.settings.dead_letter_queue
        while self._behind() or drain.queued(sqs, letters):
            self.consumer.check()
            time.sleep(0.25)

    def _behind(self) -> list[str]:
        committed = checkpoints.read(self.aws.client("dynamodb"), self.name)
        return drain.uncommitted_shards(self.aws.client("kinesis"), self.name, committed)

    def finish(self, sent: Sent) -> None:
        """It ends in order and leaves no process; all is accounted for once, and stored as if nothing had been."""
        assert self.consumer.stop() == 0
        assert self.consumer.family() == []
        client, bucket = self.aws.client, self.settings.bucket
        found = audit(
            kinesis=client("kinesis"),
            s3=client("s3"),
            stream=self.name,
            bucket=bucket,
            consumer=self.name,
            checkpoints=checkpoints.read(client("dynamodb"), self.name),
        )
        total = found.total
        assert found.balanced
        assert (total.missing, total.duplicated, total.pending) == (0, 0, 0)
        assert total.accepted == sent.sent > READINGS
        codes = {str(name): count for name, count in sent.expected.items() if name is not None}
        assert unexpected(codes, total.parked, total.repeated) == []
        expected, kept = self._undisturbed(), self._files(bucket)
        assert kept.keys() == expected.keys()
        assert [key for key, table in expected.items() if not kept[key].equals(table)] == []
        assert manifests(client("s3"), bucket, self.name) == manifests(client("s3"), self.name, self.name)

    def _files(self, bucket: str) -> dict[str, pa.Table]:
        found = stored(self.aws.client("s3"), bucket)
        return {key: table for key, table in found.items() if key not in self.seen}

    def _undisturbed(self) -> dict[str, pa.Table]:
        """The same stream, read from its beginning to its end by consumers in this process."""
        client, stream = self.aws.client, self.name
        client("s3").create_bucket(Bucket=stream)
        queue = client("sqs").create_queue(QueueName=stream)["QueueUrl"]
        settings = replace(self.settings, bucket=stream, dead_letter_queue=queue, latest_table="", bus="")
        dependencies = app.dependencies(settings, load_registry(), client)
        late = replace(dependencies, now_ms=lambda: time.time_ns() // 1_000_000 + 60_000)
        for shard in shards(client("kinesis"), stream):
            with Played(partial(serve, ShardConsumer(late))) as session:
                session.player.initialize(shard.id)
                for page in pages(client("kinesis"), stream, shard.id):
                    records = [item for raw in page.records for item in user_records(raw, shard)[0]]
                    session.player.records(records, behind_ms=1_000)
                session.player.tick()
            assert session.error is None
        return stored(client("s3"), stream)


def manifests(s3: Any, bucket: str, consumer: str) -> dict[str, Any]:
    """What each segment says of itself: positions, counts, what was repeated and parked, files."""
    keys = objects.keys(s3, bucket, f"{SEGMENTS}{consumer}/")
    return {key: msgspec.json.decode(objects.get(s3, bucket, key) or b"") for key in keys}


Begin = Callable[..., Any]


@pytest.fixture
def begin(aws: Embedded, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Begin:
    """A consumer that is ready to read a stream of the test's own."""
    name = f"at-{time.time_ns()}"

    @contextmanager
    def running(host: str, **more: str) -> Iterator[Scene]:
        client = aws.client
        client("kinesis").create_stream(StreamName=name, ShardCount=SHARDS)
        client("kinesis").get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1})
        write_leases(client("dynamodb"), client("kinesis"), application=name, stream=name, worker=WORKER)
        here = {"applicationName": name, "streamName": name, "workerId": WORKER, "app.shard_host": host}
        here |= {"app.segment_seconds": "2", "app.checkpoint_seconds": "2", **more}
        properties = read_properties(shipped("properties") / "local.properties") | aws.settings() | here
        file = tmp_path / "this.properties"
        file.write_text("".join(f"{key} = {value}\n" for key, value in properties.items()))
        seen = set(objects.keys(client("s3"), properties["app.bucket"], "events/"))
        # What is killed leaves its folder behind; a path of a test would be too long for its socket.
        environ = {**aws.environ, "TMPDIR": str(tmp_path_factory.getbasetemp())}
        consumer = Consumer(file, environ, tmp_path / "consumer.log")
        try:
            consumer.ready(SHARDS)
            yield Scene(aws, name, consumer, properties, seen)
        finally:
            consumer.kill()

    return running


@pytest.mark.parametrize(
    ("host", "acts"),
    [
        ("true", [it.kill_shard, it.kill_launcher, it.kill_host, it.kill_command]),
        ("false", [it.kill_shard, it.kill_daemon, it.kill_command]),
    ],
    ids=["hosted", "alone"],
)
def test_killed_processes_do_not_change_stored_data(begin: Begin, host: str, acts: list[Act]) -> None:
    rng = random.Random(1)
    with begin(host) as scene:
        sent = scene.disturb(rng.sample(acts, len(acts)), rng)
        scene.drain()
        assert len(scene.consumer.told.of("daemon_started")) > 1
        assert bool(scene.consumer.told.of("host_started")) == (host == "true")
        scene.finish(sent)


@HOST
def test_a_hanging_shard_is_killed_with_its_daemon(begin: Begin, host: str) -> None:
    rng = random.Random(2)
    with begin(host, timeoutInSeconds="20") as scene:
        sent = scene.disturb([it.stop_shard], rng)
        scene.drain()
        told = scene.consumer.told
        assert told.of("child_timed_out")
        assert told.of("daemon_restarting")
        scene.finish(sent)


def test_after_the_host_is_abandoned_shards_continue_or_run_standalone(begin: Begin) -> None:
    rng = random.Random(3)
    with begin("true") as scene:
        consumer = scene.consumer
        first = consumer.shards()

        def still_there(_consumer: Consumer, _rng: random.Random) -> None:
            assert not consumer.told.of("daemon_restarting")
            assert set(consumer.shards()) == set(first)

        sent = scene.disturb([it.kill_host_for_good, still_there, it.kill_shard], rng)
        scene.drain()
        assert consumer.told.of("daemon_restarting")
        assert [len(consumer.shards()), len(consumer.launchers()), len(consumer.hosts())] == [SHARDS, 0, 0]
        scene.finish(sent)
