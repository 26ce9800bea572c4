"""What the composition root makes: boto3 clients that can let go of their connections."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest
from botocore.awsrequest import AWSRequest
from botocore.httpsession import URLLib3Session

from stream_app import app


class Lasting(BaseHTTPRequestHandler):
    """Answers anything, and keeps the connection."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing to say."""


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Lasting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def open_to(port: int) -> int:
    found = psutil.Process().net_connections(kind="tcp")
    return sum(bool(one.raddr) and one.raddr.port == port and one.status == "ESTABLISHED" for one in found)


def test_no_connection_is_left_and_the_next_request_opens_one(port: int) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1"}
    client = app.clients({**keys, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"})
    of_credentials = URLLib3Session()  # as botocore has one to ask a container's or an instance's keys
    request = AWSRequest("GET", f"http://127.0.0.1:{port}/keys").prepare()
    for _ in range(2):
        client("s3").list_buckets()
        of_credentials.send(request)
        assert open_to(port) == 2
        client.disconnect()
        assert open_to(port) == 0
