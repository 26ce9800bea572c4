"""A pipe from the stream to an API: in order, tried again, and at last a dead letter that holds metadata only."""

from __future__ import annotations

import base64
import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.errors import ConfigError
from stream_app.local.counters import Counters
from stream_app.local.deploy import deploy, placed, templates
from stream_app.local.patterns import compile_filters
from stream_app.local.pipes import World, pipes
from stream_app.local.runners import poster, run_all
from stream_app.local.shards import StreamReader
from stream_app.local.stream_pipe import Place, Rules, StreamPipe, dead_letter
from stream_app.local.targets import ApiTarget, Unresolved
from stream_app.local.way import Way
from stream_app.sinks.retry import Policy

Clients = Callable[[str], Any]
NOW = 1_700_000_000.0
PLACE = Place("arn:stream", "arn:role", "us-east-1")


class Poison:
    """A target that takes a batch only whole, and none that holds a record that begins with "bad"."""

    most = 500

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.tries: dict[str, int] = {}

    def prepare(self, seen: Mapping[str, Any], data: bytes) -> Any:
        return data.decode()

    def send(self, entries: Sequence[Any]) -> list[int]:
        for entry in entries:
            self.tries[entry] = self.tries.get(entry, 0) + 1
        if any(entry.startswith("bad") for entry in entries):
            return list(range(len(entries)))
        self.taken += entries
        return []


class Letters:
    """An SQS client that keeps what it is sent."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []

    def send_message(self, QueueUrl: str, MessageBody: str) -> None:
        assert QueueUrl == "url"
        self.bodies.append(json.loads(MessageBody))


def record(n: int, data: str, age: float = 0.0) -> dict[str, Any]:
    return {
        "PartitionKey": "d",
        "SequenceNumber": str(n),
        "Data": data.encode(),
        "ApproximateArrivalTimestamp": datetime.fromtimestamp(NOW - age, UTC),
    }


def way(target: Any) -> Way:
    return Way(
        name="p",
        arn="arn:pipe",
        payload="data",
        body=lambda raw: b"",
        matches=compile_filters([]),
        transform=lambda raw, seen: base64.b64decode(raw["data"]),
        target=target,
    )


def delivered(
    records: list[dict[str, Any]], rules: Rules
) -> tuple[Poison, list[dict[str, Any]], dict[str, int]]:
    target, letters, counters = Poison(), Letters(), Counters()
    policy = Policy(base_ms=0, cap_ms=0)
    pipe = StreamPipe(
        way(target), rules, PLACE, letters, counters, now=lambda: NOW, rng=random.Random(1), policy=policy
    )
    pipe.take("shardId-000000000000", records, threading.Event())
    return target, letters.bodies, counters.snapshot()


RECORDS = st.lists(st.booleans(), max_size=40).map(
    lambda bad: [record(n, f"{'bad' if is_bad else 'good'}-{n}") for n, is_bad in enumerate(bad)]
)


@given(RECORDS, st.integers(1, 9), st.integers(0, 3))
def test_bisection_gives_up_the_guilty_records_alone(
    records: list[dict[str, Any]], batch: int, attempts: int
) -> None:
    rules = Rules(batch=batch, attempts=attempts, bisect=True, dead_letters="url")
    target, letters, counts = delivered(records, rules)
    good = [r["Data"].decode() for r in records if r["Data"].startswith(b"good")]
    bad = [r["SequenceNumber"] for r in records if r["Data"].startswith(b"bad")]
    assert target.taken == good
    assert [letter["KinesisBatchInfo"]["startSequenceNumber"] for letter in letters] == bad
    assert all(letter["KinesisBatchInfo"]["batchSize"] == 1 for letter in letters)
    assert (counts["received"], counts["delivered"], counts["dead_lettered"]) == (
        len(records),
        len(good),
        len(bad),
    )


@given(RECORDS, st.integers(1, 9), st.integers(0, 3))
def test_without_bisection_a_batch_is_given_up_whole(
    records: list[dict[str, Any]], batch: int, attempts: int
) -> None:
    target, letters, counts = delivered(records, Rules(batch=batch, attempts=attempts, dead_letters="url"))
    parts = [records[start : start + batch] for start in range(0, len(records), batch)]
    bad = [part for part in parts if any(r["Data"].startswith(b"bad") for r in part)]
    assert [letter["KinesisBatchInfo"]["batchSize"] for letter in letters] == [len(part) for part in bad]
    assert all(target.tries[r["Data"].decode()] == attempts + 1 for part in bad for r in part)
    assert counts["delivered"] + counts["dead_lettered"] == len(records)


@given(st.lists(st.booleans(), max_size=30))
def test_a_record_that_is_too_old_is_not_sent(old: list[bool]) -> None:
    records = [record(n, f"good-{n}", age=101 if is_old else 99) for n, is_old in enumerate(old)]
    target, letters, _ = delivered(records, Rules(seconds=100, dead_letters="url"))
    assert target.taken == [f"good-{n}" for n, is_old in enumerate(old) if not is_old]
    assert sum(letter["KinesisBatchInfo"]["batchSize"] for letter in letters) == sum(old)
    assert all(letter["context"]["condition"] == "RecordAgeExceeded" for letter in letters)


def test_without_a_queue_records_are_given_up_and_counted() -> None:
    _, letters, counts = delivered([record(1, "bad")], Rules(attempts=0))
    assert (letters, counts["dead_lettered"]) == ([], 1)


def test_the_dead_letter_is_the_one_that_pipes_sends() -> None:
    batch = [record(7, "secret payload", age=2.5), record(9, "secret payload", age=1)]
    text = dead_letter("arn:pipe", "arn:stream", "shardId-000000000003", batch, "RetryAttemptsExhausted", NOW)
    assert "secret" not in text
    assert json.loads(text) == {
        "context": {"partnerResourceArn": "arn:pipe", "condition": "RetryAttemptsExhausted"},
        "version": "1.0",
        "timestamp": "2023-11-14T22:13:20.000Z",
        "KinesisBatchInfo": {
            "shardId": "shardId-000000000003",
            "startSequenceNumber": "7",
            "endSequenceNumber": "9",
            "approximateArrivalOfFirstRecord": "2023-11-14T22:13:17.500Z",
            "approximateArrivalOfLastRecord": "2023-11-14T22:13:19.000Z",
            "batchSize": 2,
            "streamArn": "arn:stream",
        },
    }


class Api:
    """An endpoint that keeps what is posted to it and answers 500 to "bad"."""

    def __init__(self) -> None:
        self.posted: list[tuple[str, str, dict[str, str]]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                api.posted.append((self.path, body, dict(self.headers)))
                self.send_response(500 if "bad" in body else 204)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/in"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    found = Api()
    yield found
    found.server.shutdown()
    found.server.server_close()


def unwilling(event: Any, context: Any) -> None:
    raise OSError("as asked")


@pytest.fixture
def clients(aws: Clients) -> Clients:
    return cache(aws)


def test_the_stream_reaches_the_api_and_what_it_refuses_the_dead_letter_queue(
    clients: Clients, api: Api
) -> None:
    parameters = {"ApiEndpoint": api.url}
    outputs = deploy(templates(), clients, shards=1, parameters=parameters)
    kinesis = clients("kinesis")
    sent = ["one", "two", '{"bad": "secret"}', "three"]
    numbers = [
        kinesis.put_record(StreamName=outputs["StreamName"], Data=data.encode(), PartitionKey="d")[
            "SequenceNumber"
        ]
        for data in sent
    ]
    stop = threading.Event()
    seen: dict[str, int] = {}

    def report(counters: Mapping[str, Any]) -> None:
        seen.update(counters["pipe"]["stream-app-delivery"])
        if seen["delivered"] + seen["dead_lettered"] >= len(sent):
            stop.set()

    handlers = {"stream_app.lambdas.hydrate": unwilling}
    run_all(
        clients,
        templates(),
        "stream-app",
        stop,
        report,
        parameters=parameters,
        handlers=handlers,
        interval=0.02,
    )
    assert (seen["delivered"], seen["dead_lettered"], seen["retried"]) == (3, 1, 5)
    good = [(body, headers["x-sequence-number"]) for _, body, headers in api.posted if "bad" not in body]
    assert good == [(data, number) for data, number in zip(sent, numbers, strict=True) if "bad" not in data]
    counts = clients("sqs").get_queue_attributes(
        QueueUrl=outputs["DeadLetterQueueUrl"], AttributeNames=["ApproximateNumberOfMessagesNotVisible"]
    )
    waiting = clients("sqs").receive_message(QueueUrl=outputs["DeadLetterQueueUrl"]).get("Messages", [])
    in_flight = int(counts["Attributes"]["ApproximateNumberOfMessagesNotVisible"])
    assert len(waiting) + in_flight == 1, "one dead letter, whether hydrate has looked at it or not"


def test_children_are_read_after_their_parents(clients: Clients) -> None:
    kinesis = clients("kinesis")
    kinesis.create_stream(StreamName="s", ShardCount=1)
    arn = kinesis.describe_stream_summary(StreamName="s")["StreamDescriptionSummary"]["StreamARN"]
    for n in range(30):
        kinesis.put_record(StreamName="s", Data=str(n).encode(), PartitionKey=f"k{n}")
    [shard] = kinesis.list_shards(StreamName="s")["Shards"]
    kinesis.split_shard(StreamName="s", ShardToSplit=shard["ShardId"], NewStartingHashKey=str(2**127))
    for n in range(30, 60):
        kinesis.put_record(StreamName="s", Data=str(n).encode(), PartitionKey=f"k{n}")
    stop, lock = threading.Event(), threading.Lock()
    taken: list[tuple[str, int]] = []

    def take(name: str, records: Sequence[Mapping[str, Any]], _: threading.Event) -> None:
        with lock:
            taken.extend((name, int(r["Data"])) for r in records)
            if len(taken) == 60:
                stop.set()

    [loop] = StreamReader(kinesis, arn, {"ShardIteratorType": "TRIM_HORIZON"}, take).loops
    loop(stop)
    assert [n for _, n in taken[:30]] == list(range(30))
    assert sorted(n for _, n in taken) == list(range(60))
    for name in {name for name, _ in taken}:
        mine = [n for shard_name, n in taken if shard_name == name]
        assert mine == sorted(mine)


def test_a_reader_that_fails_for_good_says_so(clients: Clients) -> None:
    clients("kinesis").create_stream(StreamName="s", ShardCount=2)
    arn = clients("kinesis").describe_stream_summary(StreamName="s")["StreamDescriptionSummary"]["StreamARN"]
    clients("kinesis").put_record(StreamName="s", Data=b"x", PartitionKey="k")

    def take(*_: Any) -> None:
        raise ZeroDivisionError

    [loop] = StreamReader(clients("kinesis"), arn, {"ShardIteratorType": "TRIM_HORIZON"}, take).loops
    with pytest.raises(ZeroDivisionError):
        loop(threading.Event())


def test_an_api_destination_takes_paths_queries_and_headers() -> None:
    asked: list[tuple[str, str, Mapping[str, str], bytes]] = []

    def post(method: str, url: str, headers: Mapping[str, str], body: bytes) -> int:
        asked.append((method, url, headers, body))
        return 200 if body == b"good" else 404

    destination = {"HttpMethod": "PUT", "InvocationEndpoint": "http://h/*/x"}
    parameters = {
        "HttpParameters": {
            "PathParameterValues": ["$.data.id"],
            "QueryStringParameters": {"key": "$.partitionKey", "fixed": "1"},
            "HeaderParameters": {"x-n": "$.data.n"},
        }
    }
    target = ApiTarget(post, destination, parameters)
    seen = {"partitionKey": "a b", "data": {"id": "i/1", "n": 5}}
    entries = [target.prepare(seen, b"good"), target.prepare(seen, b"not")]
    assert target.send(entries) == [1]
    method, url, headers, _ = asked[0]
    assert (method, url, headers["x-n"]) == ("PUT", "http://h/i%2F1/x?key=a+b&fixed=1", "5")
    with pytest.raises(Unresolved):
        target.prepare({"partitionKey": "k", "data": {}}, b"")


def test_an_endpoint_that_is_not_there_is_a_failure_and_no_exception() -> None:
    target = ApiTarget(poster(), {"HttpMethod": "POST", "InvocationEndpoint": "http://127.0.0.1:1/"}, {})
    assert target.send([target.prepare({}, b"x")]) == [0]


def test_an_api_destination_takes_no_batches(clients: Clients) -> None:
    found = placed(templates(), clients, parameters={"ApiEndpoint": "http://127.0.0.1:1/"})

    def batched(item: Any) -> Any:
        if item.id != "Delivery.DeliveryPipe":
            return item
        own = {**item.properties["SourceParameters"]["KinesisStreamParameters"], "BatchSize": 10}
        return item._replace(
            properties={**item.properties, "SourceParameters": {"KinesisStreamParameters": own}}
        )

    world = World(clients, poster(), lambda: 0.0, random.Random(1))
    with pytest.raises(ConfigError, match="its target takes 1 at a time"):
        pipes([batched(item) for item in found], world)
