"""The program that KCL starts for each shard: it keeps stdout for the protocol before anything else is loaded."""

from __future__ import annotations

import os
import signal
import sys
from typing import IO


def main() -> int:
    """Serve one shard on stdin and stdout. Exit code 0 at the end of input, 1 on an error, 2 on configuration."""
    protocol = os.fdopen(os.dup(1), "wb")
    # From here on, a print or a C extension that writes to stdout lands in the log, not in the protocol.
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    # Ctrl-C, and a SIGTERM to the whole group, are the launcher's: it lets KCL end its children in order.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    return _serve(protocol)


def _serve(protocol: IO[bytes]) -> int:
    from stream_app import app
    from stream_app.consumer.multilang import serve
    from stream_app.errors import ConfigError, StreamAppError
    from stream_app.telemetry import log

    log.configure()
    try:
        settings = app.load_settings(os.environ)
        log.configure(settings.log_level)
        client = app.clients(os.environ, settings.region)
        handler = app.consumer(settings, client)
        app.warm_up(settings, handler.registry, client)
        serve(handler, sys.stdin.buffer, protocol)
    except ConfigError as error:
        for problem in error.problems:
            log.get().error(problem.what, hint=problem.hint)
        return 2
    except StreamAppError as error:
        log.get().error(str(error), kind=type(error).__name__)
        return 1
    except Exception:
        log.get().exception("the consumer ends without a checkpoint")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
