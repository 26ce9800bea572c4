"""Runs the forkserver for the benchmark, in a separate process that uses the application's own code.

`python -m tests.bench.consumer.hosting FOLDER arranged|plain MARK` prints one line of JSON with the environment for
children and the path of the launcher, or null if this checkout has no forkserver. It exits when stdin is closed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.consumer.wire import MARK

_NAME = "tests.bench.consumer.hosting"
# Fallback command of the launcher: if the forkserver does not accept the shard, the run must fail.
_ALONE = "/bin/false"


@contextmanager
def hosted(folder: Path, environ: Mapping[str, str], *, arranged: bool) -> Iterator[tuple[list[str], Any]]:
    """Run the forkserver; yield the command and environment for a shard. Raises LookupError if there is none.

    If `arranged`, its clients write to BENCH_FOLDER. `folder` contains the settings file.
    """
    unmarked = {name: value for name, value in environ.items() if name != MARK}
    command = [
        sys.executable,
        "-P",
        "-m",
        _NAME,
        str(folder),
        "arranged" if arranged else "plain",
        environ[MARK],
    ]
    with (folder / "host.log").open("wb") as log:
        keeper = subprocess.Popen(
            command, env=unmarked, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
    with keeper:
        started = json.loads((keeper.stdout and keeper.stdout.readline()) or b"null")
        if started is None:
            raise LookupError("this checkout has no forkserver")
        launch = [sys.executable, "-I", "-S", started["launcher"], _ALONE]
        yield launch, {**environ, **started["environ"]}
        if keeper.stdin is not None:
            keeper.stdin.close()


def low_memory_environment() -> dict[str, str]:
    """Return the memory settings that the daemon's launcher adds to the environment of its shards."""
    if importlib.util.find_spec("stream_app.consumer.memory_release") is None:
        return {}
    memory_release: Any = importlib.import_module("stream_app.consumer.memory_release")
    return dict(memory_release.LOW_MEMORY_ENVIRONMENT)


def _keep(folder: Path, mark: str, *, arranged: bool) -> None:
    if importlib.util.find_spec("stream_app.daemon.forkserver_owner") is None:
        sys.stdout.write("null\n")
        return
    keeper: Any = importlib.import_module("stream_app.daemon.forkserver_owner")
    launcher: Any = importlib.import_module("stream_app.forkserver.client")
    module = "tests.bench.consumer.arranged_host" if arranged else "stream_app.forkserver.main"
    program = (sys.executable, "-P", "-m", module)
    low_memory = low_memory_environment()
    environ = {**low_memory, **os.environ, MARK: mark}

    def log_line(line: Mapping[str, Any]) -> None:
        sys.stderr.write(f"{json.dumps(line, default=str)}\n")

    with keeper.run_forkserver(folder, environ, log_line, program=program) as more:
        sys.stdout.write(
            json.dumps({"environ": {**low_memory, **more}, "launcher": launcher.__file__}) + "\n"
        )
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    _keep(Path(sys.argv[1]), sys.argv[3], arranged=sys.argv[2] == "arranged")
