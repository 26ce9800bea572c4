"""The boto3 clients of the composition root can close their connections."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from stream_app import app

_KEYS = {
    "Code": "Success",
    "AccessKeyId": "x",
    "SecretAccessKey": "x",
    "Token": "x",
    "Expiration": "2200-01-01T00:00:00Z",
}


class Lasting(BaseHTTPRequestHandler):
    """A service, and the metadata service of a container or an instance, that keep their connections open."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(json.dumps(_KEYS).encode() if self.path.endswith(("/keys", "/role")) else b"")

    def do_PUT(self) -> None:
        self._answer(b"token")

    def _answer(self, body: bytes) -> None:
        if self.path.endswith("/security-credentials/"):
            body = b"role"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Lasting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def open_to(port: int) -> int:
    found = psutil.Process().net_connections(kind="tcp")
    return sum(bool(one.raddr) and one.raddr.port == port and one.status == "ESTABLISHED" for one in found)


@pytest.mark.parametrize("source", ["environment", "container", "instance"])
def test_disconnect_closes_all_connections_and_the_next_request_reconnects(
    port: int, source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = f"http://127.0.0.1:{port}"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    if source == "container":
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server}/keys")
    if source == "instance":
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server)
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED", raising=False)
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"} if source == "environment" else {}
    client = app.clients({**keys, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": server})
    for connections in (1 if keys else 2, 1):
        client("s3").list_buckets()
        assert open_to(port) == connections
        client.disconnect()
        assert open_to(port) == 0
