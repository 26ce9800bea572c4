"""The forkserver's warm-up builds every request of a segment and a commit, but sends none."""

from __future__ import annotations

from typing import Any

import pytest
import structlog
from botocore.exceptions import BotoCoreError

from stream_app import app
from stream_app.consumer.dependencies import ShardDependencies
from stream_app.event_loading import load_registry
from stream_app.forkserver.prewarm import BlockedRequests, run_shard
from stream_app.resources import shipped
from stream_app.settings import Settings, read_properties
from stream_app.telemetry import log

SERVICES = ("s3", "sqs", "dynamodb")
NOWHERE = {  # a port on which nothing can listen
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    "AWS_ACCESS_KEY_ID": "a",
    "AWS_SECRET_ACCESS_KEY": "b",
    "AWS_REGION": "eu-central-1",
}


@pytest.fixture
def client() -> app.Clients:
    return app.clients(NOWHERE, attempts=1)


@pytest.fixture
def dependencies(client: app.Clients) -> ShardDependencies:
    return app.dependencies(_settings(), load_registry(), client)


def _settings() -> Settings:
    properties = read_properties(shipped("properties") / "local.properties")
    more = {
        "app.bucket": "bucket",
        "app.dead_letter_queue": "http://127.0.0.1:1/1/dead",
        "app.latest_table": "latest",
        "app.retry_attempts": "1",
    }
    return Settings.load({}, {**properties, **more})


def test_event_types_are_stored_and_committed_without_sending_requests(
    dependencies: ShardDependencies, client: app.Clients
) -> None:
    made: list[str] = []
    for service in SERVICES:
        client(service).meta.events.register("before-call", lambda model, **_: made.append(model.name))
    sending = BlockedRequests(map(client, SERVICES))
    for codec in dependencies.registry.codecs.values():
        run_shard(dependencies, codec, sending)
    assert set(made) == {"PutObject", "PutItem", "DeleteObject", "SendMessageBatch"}


def test_requests_outside_the_block_are_sent(client: app.Clients) -> None:
    s3: Any = client("s3")
    sending = BlockedRequests([s3])
    with sending.held():
        s3.put_object(Bucket="bucket", Key="key", Body=b"x")
    with pytest.raises(BotoCoreError):
        s3.put_object(Bucket="bucket", Key="key", Body=b"x")


def test_a_blocked_batch_is_answered_as_sent(client: app.Clients) -> None:
    sqs: Any = client("sqs")
    entries = [{"Id": str(at), "MessageBody": "x"} for at in range(3)]
    with BlockedRequests([sqs]).held():
        answer = sqs.send_message_batch(QueueUrl="http://127.0.0.1:1/1/dead", Entries=entries)
    assert [sent["Id"] for sent in answer["Successful"]] == ["0", "1", "2"]


def test_a_warm_up_shard_runs_to_its_end_with_every_commit(
    dependencies: ShardDependencies, client: app.Clients, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure()
    saved: list[str] = []
    client("s3").meta.events.register(
        "provide-client-params.s3.PutObject", lambda params, **_: saved.append(params["Key"])
    )
    run_shard(
        dependencies, dependencies.registry.codecs["air_quality"], BlockedRequests(map(client, SERVICES))
    )
    names = [key.rpartition("/")[2] for key in saved if key.startswith("state/")]
    assert names == ["2", "12", "SHARD_END"]
    assert sum(key.endswith(".parquet") for key in saved) == 3
    assert "warm-up" not in structlog.contextvars.get_contextvars().values()
    assert capsys.readouterr() == ("", "")


def test_without_blocked_requests_no_request_is_made(
    dependencies: ShardDependencies, client: app.Clients
) -> None:
    made: list[str] = []
    for service in SERVICES:
        client(service).meta.events.register("before-call", lambda model, **_: made.append(model.name))
    run_shard(dependencies, dependencies.registry.codecs["parcel"], None)
    assert not made
