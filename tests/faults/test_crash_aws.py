"""Crashes anywhere in a run over the real sinks: S3 then holds what an undisturbed run leaves, byte for byte."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import inf
from typing import Any

import pytest

from stream_app import app
from stream_app.consumer.protocol.multilang import serve
from stream_app.consumer.shard import ShardConsumer
from stream_app.consumer.snapshots import SHARD_END, S3Snapshots
from stream_app.model.record import Record
from stream_app.settings import Settings
from stream_app.testing import ConsumerEndedError, Played, record
from tests.samples import DEVICES, FORMS, GARBAGE, HOUR, NOTES, START, encoded, registry
from tests.support import CrashError, entries_of

REGISTRY = registry()
BUCKET, SHARD = "events", "shardId-000000000000"
RECORDS = 600


def made(seed: int) -> list[Record]:
    """A shard's records: repeats, failures of every stage, late readings, anomalies, aggregates."""
    rng = random.Random(seed)
    records: list[Record] = []
    arrived, sequence, sub = START + 24 * HOUR, 0, 0
    for at in range(RECORDS):
        device = rng.choice(DEVICES)
        fields = {
            "id": rng.choice((None, str(at), str(at - rng.randrange(1, 6)))),
            "device": device,
            "time": START + (at // 9 - rng.choice((0, 0, 0, 1, 9))) * HOUR,
            "value": rng.choice((None, 1.0, 2.5, 2.75, 99.0, 101.0)),
            "level": rng.choice((None, 7)),
            "note": rng.choice(NOTES * 3 + (None, None)),
            "sent_at": None,
        }
        data = encoded(rng.choice(("reading", "step")), fields, rng.choice(FORMS))
        arrived += rng.choice((0, 1, 40, 300, -200))
        sequence, sub = (sequence, sub + 1) if rng.random() < 0.2 and at else (sequence + 3, 0)
        data = rng.choice(GARBAGE) if rng.random() < 0.1 else data
        records.append(record(data, sequence, key=device, arrived=arrived, sub=sub))
    return records


class Life:
    """How many calls to AWS a process has left, and whether it dies before or after the last one."""

    def __init__(self, calls: float, after: bool) -> None:
        self.calls, self.after = calls, after


class Dying:
    """A boto3 client in a process with a limited life."""

    def __init__(self, client: Any, life: Life) -> None:
        self._client, self._life = client, life

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return self._dying(found) if callable(found) else found

    def _dying(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def calling(*args: Any, **kwargs: Any) -> Any:
            self._life.calls -= 1
            if self._life.calls <= 0:  # nothing that handles an error brings the process back
                if self._life.calls == 0 and self._life.after:
                    call(*args, **kwargs)
                raise CrashError
            return call(*args, **kwargs)

        return calling


class Site:
    """AWS in this process, and the consumers that come and go."""

    def __init__(self, aws: Callable[[str], Any], name: str) -> None:
        self._aws = aws
        self.bucket = f"{BUCKET}-{name}"
        aws("s3").create_bucket(Bucket=self.bucket)
        self.queue = aws("sqs").create_queue(QueueName=f"dead-{name}")["QueueUrl"]
        self.settings = Settings(
            "app",
            "devices",
            bucket=self.bucket,
            dead_letter_queue=self.queue,
            segment_seconds=2,
            segment_records=25,
            checkpoint_seconds=3,
            retry_base_ms=1,
            seen_ids=5,
        )
        self.now_ms = 0
        self.crashes = 0

    def consumer(self, rng: random.Random | None) -> ShardConsumer:
        life = Life(rng.randrange(1, 60), rng.random() < 0.5) if rng else Life(inf, False)

        def client(service: str) -> Any:
            return Dying(self._aws(service), life)

        dependencies = app.dependencies(self.settings, REGISTRY, client)
        return ShardConsumer(replace(dependencies, now_ms=lambda: self.now_ms))

    def play(self, records: list[Record], rng: random.Random | None) -> None:
        """Read the whole shard; with `rng`, dying now and then and starting from the last checkpoint."""
        at, checkpoint = 0, ("TRIM_HORIZON", 0)
        positions = [(item.sequence_number, item.sub_sequence_number) for item in records]
        while at <= len(records):
            consumer = self.consumer(rng)
            with Played(partial(serve, consumer)) as session, suppress(ConsumerEndedError):
                self._read(session, records, at, checkpoint, rng)
            assert session.error is None or isinstance(session.error, CrashError)
            self.crashes += session.error is not None
            done = session.player.checkpoints
            if done and done[-1][0] is None:
                return
            if done:
                checkpoint = (str(done[-1][0]), done[-1][1] or 0)
                at = positions.index(checkpoint) + 1

    def _read(
        self,
        session: Played,
        records: list[Record],
        at: int,
        checkpoint: tuple[str, int],
        rng: random.Random | None,
    ) -> None:
        session.player.initialize(SHARD, *checkpoint)
        while at < len(records):
            count = rng.randrange(1, 40) if rng else 100
            part = records[at : at + count]
            self.now_ms = max(self.now_ms, part[-1].approximate_arrival_timestamp)
            session.player.records(part, behind_ms=5_000)
            at += len(part)
            if rng and rng.random() < 0.03:
                session.player.shutdown_requested()
                return
        session.player.shard_ended()

    def objects(self) -> dict[str, bytes]:
        """Every object but the snapshots on the way, which depend on when checkpoints were made."""
        s3 = self._aws("s3")
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        kept = [key for key in keys if not key.startswith("state/")]
        return {key: s3.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in kept}

    def state(self) -> dict[tuple[str, str, str], bytes]:
        """What is left for the shard's children."""
        snapshot = S3Snapshots(self._aws("s3"), self.bucket, "app").load(SHARD, SHARD_END)
        assert snapshot is not None
        return entries_of(snapshot)

    def letters(self) -> set[str]:
        """Every dead letter, each of which may have been sent more than once."""
        found: set[str] = set()
        while (
            messages := self._aws("sqs")
            .receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10, VisibilityTimeout=600)
            .get("Messages")
        ):
            found |= {json.dumps(json.loads(message["Body"]), sort_keys=True) for message in messages}
        return found


@pytest.fixture
def site(aws: Callable[[str], Any]) -> Callable[[str], Site]:
    aws("kinesis").create_stream(StreamName="devices", ShardCount=1)
    return lambda name: Site(aws, name)


@pytest.mark.parametrize("seed", range(6))
def test_crashes_do_not_change_s3_or_the_queue(site: Callable[[str], Site], seed: int) -> None:
    records = made(seed)
    undisturbed, rough = site("calm"), site("rough")
    undisturbed.play(records, None)
    rough.play(records, random.Random(seed))
    expected, found = undisturbed.objects(), rough.objects()
    assert found.keys() == expected.keys()
    # It counts the starts at a checkpoint, so it is the one object that tells of crashes.
    attempts = f"quarantine/app/{SHARD}/attempts.json"
    assert [key for key in found if found[key] != expected[key] and key != attempts] == []
    assert rough.state() == undisturbed.state()
    assert rough.letters() == undisturbed.letters()
    assert rough.crashes > 1
    assert len(expected) > 20
