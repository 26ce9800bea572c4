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

# moto takes any; what has the form of a real key id passes every client's own checks.
_KEY_ID = "AKIAIOSFODNN7EXAMPLE"
_TAIL_LINES = 20
_POLL_S = 0.02
_STOP_S = 10.0
_BAD_CONFIGURATION = 2


@dataclass(frozen=True, slots=True)
class LocalAws:
    """A running embedded AWS. Leaving it as a context stops it; so does the end of this process."""

    endpoint: str
    pid: int
    log: Path
    _process: subprocess.Popen[bytes]
    _drops_log: bool

    @property
    def port(self) -> int:
        """The port of 127.0.0.1."""
        return int(self.endpoint.rpartition(":")[2])

    def environment(self) -> dict[str, str]:
        """What makes boto3, the AWS CLI and KCL's daemon talk to it, and to nothing else."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": _KEY_ID,
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def inject(self, *faults: Fault) -> int:
        """Set fault switches on the server; how many records a Trim removed. Raises ConfigError, FatalError."""
        answer = json.loads(self._ask("POST", msgspec.json.encode(faults)))
        return int(answer["trimmed"])

    def clear_faults(self) -> None:
        """All switches off. Raises FatalError when the server is gone."""
        self._ask("DELETE", b"")

    def running(self) -> bool:
        """Whether its process still runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End it and wait for its end; safe to repeat."""
        if self.running():
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        if self._drops_log:
            self.log.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _ask(self, method: str, body: bytes) -> bytes:
        status, said = _request(self.port, method, "/stream-app/faults", body)
        if status == http.HTTPStatus.BAD_REQUEST:
            raise ConfigError([Problem(json.loads(said)["error"], "see stream_app.local.server.faults")])
        if status != http.HTTPStatus.OK:
            raise FatalError(f"the embedded AWS at {self.endpoint} answered {status}")
        return said


def start(port: int = 0, log: Path | None = None, timeout: float = 60.0) -> LocalAws:
    """Start it on `port` of 127.0.0.1 (0: a free one) and wait until it answers, at most `timeout` seconds.

    What it says goes to the file `log`, by default to a temporary one that goes when it is stopped.
    Raises ConfigError when it cannot be started like this (the port is taken), FatalError when it does not come up;
    both with the last lines of its log.
    """
    own = log is None
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
                raise FatalError(f"the embedded AWS answered {status}; its log {log} ends:\n{_tail(log)}")
        except BaseException:
            process.kill()
            process.wait()
            raise
    return LocalAws(found["endpoint"], process.pid, log, process, own)


def _launch(port: int, ready: Path, log: Path) -> subprocess.Popen[bytes]:
    """In a session of its own, so that Ctrl-C in a terminal leaves it to us to stop it, and when."""
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
            raise ConfigError([Problem("the embedded AWS cannot be started", _tail(log))])
        if code is not None:
            raise FatalError(f"the embedded AWS ended with {code}; its log {log} ends:\n{_tail(log)}")
        if time.monotonic() > until:
            raise FatalError(
                f"the embedded AWS did not answer in {timeout:g} s; its log {log} ends:\n{_tail(log)}"
            )
        time.sleep(_POLL_S)
    return ready.read_text(encoding="utf-8")


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-_TAIL_LINES:])


def _request(port: int, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    """Not through urllib or boto3: neither a proxy nor a retry may come between."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise FatalError(f"the embedded AWS at port {port} does not answer: {error}") from error
    finally:
        connection.close()
