"""The shard host: one process that loads everything once, and forks a consumer for each shard.

Started by `consumer.host_keeper` with a listening socket; see `consumer.host_fork` for what happens then.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
import time
from pathlib import Path

from stream_app import child
from stream_app.consumer.host_fork import ForkServer
from stream_app.errors import FatalError
from stream_app.telemetry import log


def main() -> int:
    """Serve on the socket whose descriptor is the argument. Exit code 2 on configuration, 3 when it may not fork."""
    return child.ended(lambda: _serve(socket.socket(fileno=int(sys.argv[1]))))


def _serve(listener: socket.socket) -> None:
    begun = time.monotonic()
    make = child.prepare()

    def shard() -> int:
        protocol = child.take_stdout()
        child.ignore_signals()
        return child.ended(lambda: child.serve(make(), protocol))

    gc.collect()
    gc.freeze()  # else the first collection in a fork would write to every page
    log.get().info("host ready", pid=os.getpid(), in_seconds=round(time.monotonic() - begun, 3))
    ForkServer(listener, shard, log.get().warning).run()


if __name__ == "__main__":
    sys.exit(main())
