"""The embedded AWS as one thing: server, resources of the infra template, pipes and functions running."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from stream_app.errors import FatalError
from stream_app.local.deployers.deploy import deploy, templates
from stream_app.local.server import process as aws
from stream_app.resources import shipped
from stream_app.settings import read_properties

Client = Callable[[str], Any]
MakeClient = Callable[[Mapping[str, str]], Client]


@dataclass(frozen=True, slots=True)
class Embedded:
    """What runs: the environment that leads clients to it, its outputs by name, and the processes' ids."""

    application: str
    environ: Mapping[str, str]
    outputs: Mapping[str, str]
    client: Client
    pids: Mapping[str, int]

    def settings(self) -> dict[str, str]:
        """The properties by which daemon and consumer find it."""
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
    """Start it all, and stop it at the end. Logs go to `folder`. Raises FatalError when a part does not come up."""
    folder.mkdir(parents=True, exist_ok=True)
    note("starting the embedded AWS")
    with aws.start(port, folder / "aws.log") as server:
        environ = {**os.environ, **server.environment()}
        client = make_client(environ)
        note("applying the infra template")
        outputs = deploy(templates(), client, application=application, shards=shards)
        note("starting pipes and functions")
        with (
            (folder / "runners.log").open("ab") as log,
            _runners({**environ, "STREAM_APP_BUCKET": outputs["BucketName"]}, application, log) as runners,
        ):
            pids = {"aws": server.pid, "runners": runners.pid}
            yield Embedded(application, environ, outputs, client, pids)


def write_properties(aws: Embedded, folder: Path) -> Path:
    """A properties file for daemon and audit, made of the shipped local one and what this instance is."""
    given = read_properties(shipped("properties") / "local.properties") | aws.settings()
    file = folder / "local.properties"
    file.write_text("".join(f"{name} = {value}\n" for name, value in given.items()), encoding="utf-8")
    return file


def usage(aws: Embedded, properties: Path) -> str:
    """What to type in another terminal."""
    names = ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    lines = [f"export {name}={aws.environ[name]}" for name in (*names, "AWS_EC2_METADATA_DISABLED")]
    bus, stream = aws.outputs["BusName"], aws.outputs["StreamName"]
    lines += [
        "",
        f"stream-app daemon --properties {properties}",
        f"stream-app devices play beijing-winter --bus {bus} --stream {stream} --rate 200",
        f"stream-app audit --properties {properties}",
        "",
        "Ctrl-C stops it; all that it holds goes with it.",
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
            raise FatalError(f"pipes and functions ended with code {process.returncode}: see {log.name}")
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
