"""Start and stop the embedded AWS: `with start() as aws: boto3.client("s3", endpoint_url=aws.endpoint)`."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

import stream_app
from stream_app.errors import ConfigError, FatalError, Problem
from stream_app.local.server.faults import REGION, Fault

# moto accepts any key ID, but some clients validate its format.
_KEY_ID = "AKIAIOSFODNN7EXAMPLE"
_TAIL_LINES = 20
_POLL_S = 0.02
_STOP_S = 10.0
_BAD_CONFIGURATION = 2


@dataclass(frozen=True, slots=True)
class LocalAws:
    """A running embedded AWS. It stops at the end of its context and at the end of this process."""

    endpoint: str
    pid: int
    log: Path
    _process: subprocess.Popen[bytes]
    _deletes_log: bool

    @property
    def port(self) -> int:
        """The port on 127.0.0.1."""
        return int(self.endpoint.rpartition(":")[2])

    def environment(self) -> dict[str, str]:
        """Environment variables that direct boto3, the AWS CLI and the KCL daemon to this server only."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": _KEY_ID,
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def inject(self, *faults: Fault) -> int:
        """Activate faults on the server. Returns the number of records removed by Trim faults.

        Raises ConfigError for an invalid fault, FatalError if the server does not respond.
        """
        answer = json.loads(self._call("POST", msgspec.json.encode(faults)))
        return int(answer["trimmed"])

    def clear_faults(self) -> None:
        """Turn all fault switches off. Raises FatalError if the server does not respond."""
        self._call("DELETE", b"")

    def running(self) -> bool:
        """Return whether the server process is running."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Stop the server and wait until it has ended. Idempotent."""
        if self.running():
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        if self._deletes_log:
            self.log.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _call(self, method: str, body: bytes) -> bytes:
        status, response = _request(self.port, method, "/stream-app/faults", body)
        if status == http.HTTPStatus.BAD_REQUEST:
            raise ConfigError([Problem(json.loads(response)["error"], "see stream_app.local.server.faults")])
        if status != http.HTTPStatus.OK:
            raise FatalError(f"the embedded AWS at {self.endpoint} responded with status {status}")
        return response


def start(port: int = 0, log: Path | None = None, timeout: float = 60.0) -> LocalAws:
    """Start the embedded AWS on `port` of 127.0.0.1 (0: any free port) and wait up to `timeout` seconds for it.

    Its output goes to the file `log`, by default a temporary file that is deleted when the server stops. Raises
    ConfigError if the configuration is invalid (the port is in use) and FatalError if the server does not respond;
    both contain the last lines of the log.
    """
    temporary = log is None
    if log is None:
        handle, name = tempfile.mkstemp(prefix="stream-app-aws-", suffix=".log")
        os.close(handle)
        log = Path(name)
    with tempfile.TemporaryDirectory(prefix="stream-app-aws-") as folder:
        ready = Path(folder) / "ready.json"
        process = _launch(port, ready, log)
        try:
            found = json.loads(_wait(process, ready, log, timeout))
            status, _ = _request(found["port"], "GET", "/stream-app/health", b"")
            if status != http.HTTPStatus.OK:
                raise FatalError(
                    f"the embedded AWS responded with status {status}; its log {log} ends:\n{_tail(log)}"
                )
        except BaseException:
            process.kill()
            process.wait()
            raise
    return LocalAws(found["endpoint"], process.pid, log, process, temporary)


def _launch(port: int, ready: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start the process in its own session, so that Ctrl-C in a terminal does not stop it before its clients."""
    command = [sys.executable, "-P", "-m", "stream_app.local.server"]
    command += ["--port", str(port), "--ready-file", str(ready), "--parent", str(os.getpid())]
    root = str(Path(stream_app.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    with log.open("ab") as out:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )


def _wait(process: subprocess.Popen[bytes], ready: Path, log: Path, timeout: float) -> str:
    until = time.monotonic() + timeout
    while not ready.exists():
        code = process.poll()
        if code == _BAD_CONFIGURATION:
            raise ConfigError([Problem("the embedded AWS could not be started", _tail(log))])
        if code is not None:
            raise FatalError(
                f"the embedded AWS ended with exit code {code}; its log {log} ends:\n{_tail(log)}"
            )
        if time.monotonic() > until:
            raise FatalError(
                f"the embedded AWS did not respond within {timeout:g} s; its log {log} ends:\n{_tail(log)}"
            )
        time.sleep(_POLL_S)
    return ready.read_text(encoding="utf-8")


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-_TAIL_LINES:])


def _request(port: int, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    """Send a request with http.client, because urllib would apply proxy settings and boto3 would retry."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise FatalError(f"the embedded AWS on port {port} does not respond: {error}") from error
    finally:
        connection.close()
