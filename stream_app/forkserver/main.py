"""The shard host: one process that loads everything once, and forks a consumer for each shard.

Started by `daemon.forkserver_owner` with a listening socket; see `forkserver.server` for what happens then.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
import time
from pathlib import Path

from stream_app import record_processor
from stream_app.consumer.memory_release import malloc_trim
from stream_app.consumer.protocol import pipe
from stream_app.consumer.quarantine import batch_timer
from stream_app.consumer.shard import ShardConsumer
from stream_app.forkserver.prewarm import prewarm
from stream_app.forkserver.server import UNFIT, ForkServer
from stream_app.telemetry import best_effort, log

# What a record processor imports when it starts: a module that a fork imports is memory of its own.
_IMPORTED = (batch_timer, pipe, best_effort)


def main() -> int:
    """Serve on the socket whose descriptor is the argument. Exit code 2 on configuration, UNFIT for no fork."""
    return record_processor.ended(lambda: _serve(socket.socket(fileno=int(sys.argv[1]))))


def _serve(listener: socket.socket) -> None:
    begun = time.monotonic()
    consumer, client = record_processor.prepare()
    dependencies = consumer.dependencies
    prewarm(dependencies, client)
    client.disconnect()  # a fork must not share a connection
    del consumer
    gc.collect()
    malloc_trim()  # what is free stays free in the forks, so that they do not copy it page by page
    _check_alone(listener)
    gc.freeze()  # else the first collection in a fork would write to every page

    def shard() -> int:
        protocol = record_processor.take_stdout()
        record_processor.ignore_signals()
        return record_processor.ended(
            lambda: record_processor.serve(ShardConsumer(dependencies), protocol, warm=True)
        )

    log.get().info("host ready", pid=os.getpid(), in_seconds=round(time.monotonic() - begun, 3))
    ForkServer(listener, shard, log.get().warning).run()


def _check_alone(listener: socket.socket) -> None:
    """Exit where a fork would share more than memory: threads do not come along, connections do."""
    threads = len(list(Path("/proc/self/task").iterdir()))
    sockets = [
        fd
        for fd in Path("/proc/self/fd").iterdir()
        if int(fd.name) not in (0, 1, 2, listener.fileno()) and _target(fd).startswith("socket:")
    ]
    if threads > 1 or sockets:
        what = "what was loaded left threads or open connections, which a fork must not share"
        log.get().error("no shard host", reason=what, threads=threads - 1, connections=len(sockets))
        raise SystemExit(UNFIT)


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:  # the folder itself, while it was read
        return ""


if __name__ == "__main__":
    sys.exit(main())
