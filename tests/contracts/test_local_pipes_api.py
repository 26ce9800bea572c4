"""A pipe from the stream to an API destination: requests, retries and dead letters."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from stream_app.errors import ConfigError
from stream_app.local.deployers.deploy import deploy, resolve_templates, templates
from stream_app.local.pipes.runner import PipeDependencies, pipes
from stream_app.local.pipes.targets import ApiTarget, UnresolvedParameter
from stream_app.local.runners import RunnerOptions, http_sender, run_all

Clients = Callable[[str], Any]


class Api:
    """An endpoint that keeps the posted bodies and responds with status 500 to "bad"."""

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


def failing(event: Any, context: Any) -> None:
    raise OSError("as asked")


def test_records_reach_the_api_and_rejected_ones_the_dead_letter_queue(clients: Clients, api: Api) -> None:
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

    handlers = {"stream_app.lambdas.hydrate": failing}
    run_all(
        clients,
        templates(),
        "stream-app",
        stop,
        report,
        RunnerOptions(parameters=parameters, handlers=handlers, interval=0.02),
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


def test_an_api_destination_supports_paths_queries_and_headers() -> None:
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
    with pytest.raises(UnresolvedParameter):
        target.prepare({"partitionKey": "k", "data": {}}, b"")


def test_an_unreachable_endpoint_is_a_failure_without_exception() -> None:
    target = ApiTarget(http_sender(), {"HttpMethod": "POST", "InvocationEndpoint": "http://127.0.0.1:1/"}, {})
    assert target.send([target.prepare({}, b"x")]) == [0]


def test_an_api_destination_does_not_support_batches(clients: Clients) -> None:
    found = resolve_templates(templates(), clients, parameters={"ApiEndpoint": "http://127.0.0.1:1/"})

    def batched(item: Any) -> Any:
        if item.id != "Delivery.DeliveryPipe":
            return item
        own = {**item.properties["SourceParameters"]["KinesisStreamParameters"], "BatchSize": 10}
        return item._replace(
            properties={**item.properties, "SourceParameters": {"KinesisStreamParameters": own}}
        )

    dependencies = PipeDependencies(clients, http_sender(), lambda: 0.0, random.Random(1))
    with pytest.raises(ConfigError, match="the limit of its target"):
        pipes([batched(item) for item in found], dependencies)
