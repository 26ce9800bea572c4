"""The runners as a process: reports on stdout and graceful shutdown."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

import boto3
import pytest

from stream_app.local.deployers.deploy import deploy, templates

PROGRAM = """
import os, sys
from stream_app import app
from stream_app.local.deployers.deploy import templates
from stream_app.local.runners import serve
serve(app.clients(os.environ), templates(), "stream-app", sys.stdout)
"""


@pytest.fixture
def environ() -> Iterator[dict[str, str]]:
    server = subprocess.Popen(
        [sys.executable, "-m", "stream_app.local.server"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    endpoint = json.loads(server.stdout.readline())["endpoint"]
    keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "testing")
    yield {**os.environ, **keys, "AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": "us-east-1"}
    server.terminate()
    server.wait(timeout=30)
    server.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_runner_process_reports_and_stops(environ: dict[str, str], number: signal.Signals) -> None:
    session = boto3.session.Session(environ["AWS_ACCESS_KEY_ID"], environ["AWS_SECRET_ACCESS_KEY"])
    client: Any = cache(
        lambda name: session.client(name, region_name="us-east-1", endpoint_url=environ["AWS_ENDPOINT_URL"])
    )
    outputs = deploy(templates(), client, shards=1)
    body = json.dumps({"source": "stream-app.devices", "resources": ["d"]})
    client("sqs").send_message(QueueUrl=outputs["DevicesQueueUrl"], MessageBody=body)
    runners = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=environ, stdout=subprocess.PIPE, text=True
    )
    assert runners.stdout is not None
    for line in runners.stdout:
        if json.loads(line)["pipe"]["stream-app-devices"]["delivered"] == 1:
            break
    runners.send_signal(number)
    rest = [json.loads(line) for line in runners.stdout]
    assert runners.wait(timeout=30) == 0
    runners.stdout.close()
    assert set(rest[-1]) == {"ts", "pipe", "function"}
    assert set(rest[-1]["pipe"]) == {"stream-app-devices", "stream-app-ordered"}
    assert rest[-1]["function"]["stream-app-hydrate"]["received"] == 0
