"""The program of the fork server: loads the application once, then forks a consumer for each shard.

It is started by `daemon.forkserver_owner` with a listening socket and runs `forkserver.server`.
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
from stream_app.forkserver.server import CANNOT_FORK, ForkServer
from stream_app.telemetry import best_effort, log

# Imported by a record processor when it starts. Imported before the fork, their memory is shared.
_IMPORTED = (batch_timer, pipe, best_effort)


def main() -> int:
    """Serve on the socket whose descriptor is the argument.

    Exit code 2 for invalid configuration, CANNOT_FORK if what was loaded must not be forked.
    """
    return record_processor.exit_code_of(lambda: _serve(socket.socket(fileno=int(sys.argv[1]))))


def _serve(listener: socket.socket) -> None:
    started = time.monotonic()
    consumer, client = record_processor.prepare()
    dependencies = consumer.dependencies
    prewarm(dependencies, client)
    client.disconnect()  # forks must not share connections
    del consumer
    gc.collect()
    malloc_trim()  # returns free memory, which forks would otherwise copy page by page when they use it
    _check_forkable(listener)
    gc.freeze()  # otherwise the first collection in a fork would write to every page

    def shard() -> int:
        protocol = record_processor.take_stdout()
        record_processor.ignore_signals()
        return record_processor.exit_code_of(
            lambda: record_processor.serve(ShardConsumer(dependencies), protocol, warm=True)
        )

    log.get().info("host ready", pid=os.getpid(), in_seconds=round(time.monotonic() - started, 3))
    ForkServer(listener, shard, log.get().warning).run()


def _check_forkable(listener: socket.socket) -> None:
    """Exit if there are threads, which a fork does not copy, or connections, which it would share."""
    threads = len(list(Path("/proc/self/task").iterdir()))
    sockets = [
        fd
        for fd in Path("/proc/self/fd").iterdir()
        if int(fd.name) not in (0, 1, 2, listener.fileno()) and _target(fd).startswith("socket:")
    ]
    if threads > 1 or sockets:
        reason = "loading the application left threads or open connections, which must not be forked"
        log.get().error("no shard host", reason=reason, threads=threads - 1, connections=len(sockets))
        raise SystemExit(CANNOT_FORK)


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:  # the descriptor of the folder that is being read
        return ""


if __name__ == "__main__":
    sys.exit(main())
