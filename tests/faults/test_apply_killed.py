"""`failures apply`, killed with -9 at random points and run again: every record delivered, none twice.

A process of its own against the embedded AWS, and a real HTTP endpoint that counts idempotency keys and lets a key
take effect once. With `--in-doubt hold` even no key is seen twice, and what cannot be known is held for a person.
"""

from __future__ import annotations

import http.server
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest

from stream_app.local.server import process as aws
from stream_app.recovery.store import failure_keys
from tests import samples
from tests.contracts import redriving as on
from tests.contracts.redriving import BUCKET

RECORDS, DEVICES, KILLS = 60, "ABCDEFGHIJ", 8
COMMAND = (sys.executable, "-m", "stream_app.cli", "failures")
IN_FLIGHT = 4  # records that an applier sends to an endpoint at a time


def _nothing(_number: int) -> None:
    """Let it live."""


@dataclass
class Receiver:
    """An endpoint that collapses idempotency keys. `before` and `after` its answer to a request it calls.

    `heard` has every request: which run of the command it came from, and its key.
    """

    url: str = ""
    heard: list[tuple[str, str]] = field(default_factory=list)
    effects: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    before: Callable[[int], None] = _nothing
    after: Callable[[int], None] = _nothing
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, headers: Any, body: bytes) -> int:
        with self.lock:
            key = headers["Idempotency-Key"]
            self.heard.append((headers["X-Run"], key))
            self.effects.setdefault(key, (headers["Stream-App-Failure"], body))
            return len(self.heard)

    @property
    def requests(self) -> int:
        return len(self.heard)

    @property
    def seen(self) -> Counter[str]:
        return Counter(key for _, key in self.heard)

    def of_runs(self) -> list[list[str]]:
        """The keys that each run sent, in order."""
        return [[key for by, key in self.heard if by == run] for run in dict(self.heard)]


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            number = receiver.take(self.headers, self.rfile.read(int(self.headers["Content-Length"])))
            receiver.before(number)
            try:
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()
                self.wfile.flush()
            except OSError:
                self.close_connection = True  # whoever asked is dead
            receiver.after(number)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Connections of the killed break off."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        receiver.url = f"http://127.0.0.1:{server.server_port}/"
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Application:
    """The embedded AWS, an application's failures in it, and its commands."""

    folder: Path
    environ: dict[str, str]
    client: Callable[[str], Any]
    runs: int = 0

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Begin a command; the endpoint's secret tells its runs apart."""
        self.runs += 1
        options = ("--properties", str(self.folder / "test.properties"))
        return subprocess.Popen(
            [*COMMAND, *arguments, *options],
            cwd=self.folder,
            env={**self.environ, "RUN": str(self.runs)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments: str) -> tuple[int, bytes, bytes]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    @property
    def keys(self) -> list[str]:
        return list(failure_keys(self.client("s3"), BUCKET, "air"))


@pytest.fixture
def application(tmp_path: Path) -> Iterator[Application]:
    with aws.start(log=tmp_path / "aws.log") as server:
        environ = {**os.environ, **server.environment(), "STREAM_APP_HISTORY_TABLE": on.HISTORY}
        environ["PYTHONPATH"] = str(Path(__file__).parents[2])
        session: Any = boto3.Session("AKIAIOSFODNN7EXAMPLE", "local", region_name=environ["AWS_REGION"])

        def client(service: str) -> Any:
            return session.client(service, endpoint_url=server.endpoint)

        on.make_tables(client)
        on.park_readings(client("s3"), RECORDS, DEVICES)
        (tmp_path / "events").mkdir()
        (tmp_path / "events" / "reading.py").write_text("from tests.samples import READING as EVENT\n")
        (tmp_path / "schemas").mkdir()
        (tmp_path / "schemas" / "reading.avsc").write_text(json.dumps(samples.SCHEMAS["reading"]))
        (tmp_path / "test.properties").write_text(
            f"applicationName = air\nstreamName = devices\nregionName = {environ['AWS_REGION']}\n"
            f"app.bucket = {BUCKET}\napp.latest_table = {on.LATEST}\n"
        )
        yield Application(tmp_path, environ, client)


def plan(application: Application, url: str) -> Path:
    code, out, err = application.run(
        "plan", "--select", "code=RULE_BROKEN", "--to", url, "--auth", "X-Run=env:RUN"
    )
    assert code == 0, err.decode()
    file = application.folder / "plan.json"
    file.write_bytes(out)
    return file


def killed(application: Application, receiver: Receiver, rng: random.Random, *arguments: str) -> bool:
    """Apply, and kill it somewhere on its way; whether it was killed before it was done."""
    process = application.start(*arguments)
    at = receiver.requests + rng.randint(1, 20)
    moment, pause = rng.choice(("before", "after", "later")), rng.uniform(0, 0.05)
    dead = threading.Event()

    def kill(number: int) -> None:
        if number >= at and not dead.is_set():
            if moment == "later":
                time.sleep(pause)  # anywhere between two effects
            process.kill()
            dead.set()

    receiver.before, receiver.after = (kill, _nothing) if moment == "before" else (_nothing, kill)
    process.communicate(timeout=120)
    receiver.before = receiver.after = _nothing
    return process.returncode == -signal.SIGKILL


def check_repeats(receiver: Receiver) -> None:
    """What comes again is what was in flight when its sender died, and nothing else."""
    runs = receiver.of_runs()
    for number, keys in enumerate(runs):
        assert len(set(keys)) == len(keys), "no run sends a record twice"
        later = {key for run in runs[number + 1 :] for key in run}
        assert later & set(keys) <= set(keys[-IN_FLIGHT:])


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("seed", "in_doubt"), [(1, "auto"), (2, "auto"), (3, "auto"), (4, "hold"), (5, "hold")]
)
def test_every_record_is_delivered_exactly_once(application: Application, seed: int, in_doubt: str) -> None:
    rng = random.Random(seed)
    with receiving() as receiver:
        file = plan(application, receiver.url)
        arguments = ("apply", str(file), "--in-doubt", in_doubt, "--json")
        kills = sum(killed(application, receiver, rng, *arguments) for _ in range(KILLS))
        assert kills >= 3
        code, out, err = application.run(*arguments)
        done = json.loads(out)
        assert done["left"] == 0, err.decode()
        sent = [failure for failure, _ in receiver.effects.values()]
        assert len(set(sent)) == len(sent)  # a record has one key, whoever sends it
        check_repeats(receiver)
        if in_doubt == "auto":
            assert (code, done["complete"]) == (0, True)
            assert sorted(sent) == application.keys
            assert on.statuses(application.client("s3"), application.keys) == {"redriven": RECORDS}
        else:
            assert set(receiver.seen.values()) == {1}
            assert done["sent"] + done["sent_before"] + done["held"] == RECORDS
            assert done["held"] <= kills * IN_FLIGHT
            assert set(sent) <= set(application.keys)
        before = receiver.requests
        assert json.loads(application.run(*arguments)[1])["sent"] == 0
        assert receiver.requests == before


@pytest.mark.timeout(300)
def test_two_concurrent_applies_with_one_killed(application: Application) -> None:
    rng = random.Random(6)
    with receiving() as receiver:
        file = plan(application, receiver.url)
        arguments = ("apply", str(file), "--json")
        other = application.start(*arguments)
        killed(application, receiver, rng, *arguments)
        out, err = other.communicate(timeout=120)
        assert json.loads(out)["left"] == 0, err.decode()
        assert sorted(failure for failure, _ in receiver.effects.values()) == application.keys
        assert on.statuses(application.client("s3"), application.keys) == {"redriven": RECORDS}


@pytest.mark.timeout(300)
def test_ctrl_c_stops_apply_gracefully(application: Application) -> None:
    with receiving() as receiver:
        file = plan(application, receiver.url)
        process = application.start("apply", str(file), "--rate", "20/s", "--json")
        receiver.after = lambda number: process.send_signal(signal.SIGINT) if number == 10 else None
        out, _ = process.communicate(timeout=120)
        done = json.loads(out)
        assert (process.returncode, done["stopped"]) == (130, True)
        assert done["sent"] == receiver.requests < RECORDS
        # Nothing is claimed, so nothing is waited for and nothing is in doubt.
        code, out, _ = application.run("apply", str(file), "--in-doubt", "hold", "--json")
        assert (code, json.loads(out)["held"]) == (0, 0)
        assert set(receiver.seen.values()) == {1}
        assert len(receiver.seen) == RECORDS
