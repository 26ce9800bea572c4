"""The complete embedded AWS: the server, the deployed infra template, and the runners of pipes and functions."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from stream_app.aws.clients import ClientFactory
from stream_app.errors import FatalError
from stream_app.local.deployers.deploy import deploy, templates
from stream_app.local.server import process as aws
from stream_app.resources import shipped
from stream_app.settings import read_properties

# Returns a client factory for the endpoint and credentials in the environment variables.
MakeClient = Callable[[Mapping[str, str]], ClientFactory]


@dataclass(frozen=True, slots=True)
class Embedded:
    """A running embedded AWS: environment variables for clients, stack outputs, and process IDs by part."""

    application: str
    environ: Mapping[str, str]
    outputs: Mapping[str, str]
    client: ClientFactory
    pids: Mapping[str, int]

    def settings(self) -> dict[str, str]:
        """Return the properties that direct the daemon and the consumer to this instance."""
        endpoint = self.environ["AWS_ENDPOINT_URL"]
        return {
            "applicationName": self.application,
            "streamName": self.outputs["StreamName"],
            "regionName": self.environ["AWS_DEFAULT_REGION"],
            "kinesisEndpoint": endpoint,
            "dynamoDBEndpoint": endpoint,
            "app.bucket": self.outputs["BucketName"],
            "app.dead_letter_queue": self.outputs["DeadLetterQueueUrl"],
            "app.bus": self.outputs["BusName"],
            "app.latest_table": self.outputs["LatestTableName"],
        }


@contextmanager
def embedded(
    make_client: MakeClient,
    *,
    application: str,
    shards: int,
    folder: Path,
    port: int = 0,
    note: Callable[[str], None] = lambda _what: None,
) -> Iterator[Embedded]:
    """Run the embedded AWS for the duration of the context. Logs go to `folder`.

    Raises FatalError if a part does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    note("starting the embedded AWS")
    with aws.start(port, folder / "aws.log") as server:
        environ = {**os.environ, **server.environment()}
        client = make_client(environ)
        note("deploying the infra template")
        outputs = deploy(templates(), client, application=application, shards=shards)
        note("starting pipes and functions")
        with (
            (folder / "runners.log").open("ab") as log,
            _runners({**environ, "STREAM_APP_BUCKET": outputs["BucketName"]}, application, log) as runners,
        ):
            pids = {"aws": server.pid, "runners": runners.pid}
            yield Embedded(application, environ, outputs, client, pids)


def write_properties(aws: Embedded, folder: Path) -> Path:
    """Write a properties file for daemon and audit: the shipped local properties with those of this instance."""
    properties = read_properties(shipped("properties") / "local.properties") | aws.settings()
    file = folder / "local.properties"
    file.write_text("".join(f"{name} = {value}\n" for name, value in properties.items()), encoding="utf-8")
    return file


def usage(aws: Embedded, properties: Path) -> str:
    """Return the commands for another terminal."""
    names = ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    lines = [f"export {name}={aws.environ[name]}" for name in (*names, "AWS_EC2_METADATA_DISABLED")]
    bus, stream = aws.outputs["BusName"], aws.outputs["StreamName"]
    lines += [
        "",
        f"stream-app daemon --properties {properties}",
        f"stream-app devices play beijing-winter --bus {bus} --stream {stream} --rate 200",
        f"stream-app audit --properties {properties}",
        "",
        "Press Ctrl-C to stop the embedded AWS. All of its data is lost.",
    ]
    return "\n".join(lines)


@contextmanager
def _runners(
    environ: Mapping[str, str], application: str, log: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "stream_app.cli", "local", "runners", "--application", application]
    process = subprocess.Popen(
        command, env=dict(environ), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )
    try:
        yield process
        if process.poll() is not None:
            raise FatalError(f"pipes and functions ended with exit code {process.returncode}: see {log.name}")
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
