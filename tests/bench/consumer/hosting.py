"""The shard host under the benchmark: kept by the product's own keeper, in a process of its own.

`python -m tests.bench.consumer.hosting FOLDER arranged|plain` says on stdout, in one line of JSON, what a child's
environment needs and where the launcher is, or null where this checkout has no host; it ends with its stdin.
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
# What the launcher becomes where no host takes the shard: then the run must fail, not go on without one.
_ALONE = "/bin/false"


@contextmanager
def hosted(folder: Path, environ: Mapping[str, str], *, arranged: bool) -> Iterator[tuple[list[str], Any]]:
    """A running host: the command for a shard, and its environment. Raises LookupError where there is none to be had.

    `arranged`, its clients write to BENCH_FOLDER. `folder` holds the settings file.
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
        told = json.loads((keeper.stdout and keeper.stdout.readline()) or b"null")
        if told is None:
            raise LookupError("this checkout has no shard host")
        launch = [sys.executable, "-I", "-S", told["launcher"], _ALONE]
        yield launch, {**environ, **told["environ"]}
        if keeper.stdin is not None:
            keeper.stdin.close()


def frugality() -> dict[str, str]:
    """What the daemon's launcher lays under the environment of its shards."""
    if importlib.util.find_spec("stream_app.consumer.memory_release") is None:
        return {}
    memory_release: Any = importlib.import_module("stream_app.consumer.memory_release")
    return dict(memory_release.FRUGAL)


def _keep(folder: Path, mark: str, *, arranged: bool) -> None:
    if importlib.util.find_spec("stream_app.daemon.forkserver_owner") is None:
        sys.stdout.write("null\n")
        return
    keeper: Any = importlib.import_module("stream_app.daemon.forkserver_owner")
    launcher: Any = importlib.import_module("stream_app.forkserver.client")
    module = "tests.bench.consumer.arranged_host" if arranged else "stream_app.forkserver.main"
    program = (sys.executable, "-P", "-m", module)
    frugal = frugality()
    environ = {**frugal, **os.environ, MARK: mark}

    def tell(line: Mapping[str, Any]) -> None:
        sys.stderr.write(f"{json.dumps(line, default=str)}\n")

    with keeper.run_forkserver(folder, environ, tell, program=program) as more:
        sys.stdout.write(json.dumps({"environ": {**frugal, **more}, "launcher": launcher.__file__}) + "\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    _keep(Path(sys.argv[1]), sys.argv[3], arranged=sys.argv[2] == "arranged")
