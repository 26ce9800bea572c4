"""The program that KCL starts for each shard: it keeps stdout for the protocol before anything else is loaded.

The shard host (`stream_app.forkserver.main`) does the first half of it once, and the second in a fork for each shard.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from stream_app.app import Clients
    from stream_app.consumer.shard import ShardConsumer


def main() -> int:
    """Serve one shard on stdin and stdout. Exit code 0 at the end of input, 1 on an error, 2 on configuration.

    78 where a user's code fails on every record and the settings ask to stop then.
    """
    protocol = take_stdout()
    ignore_signals()
    return ended(lambda: serve(prepare()[0], protocol))


def take_stdout() -> IO[bytes]:
    """What is the protocol's alone. A print or a C extension that writes to stdout lands in the log from here on.

    A print never raises, whatever has become of stderr: the outcome of a row must not depend on it.
    """
    from stream_app.telemetry.best_effort import open_standard_files, text

    open_standard_files()
    protocol = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout, sys.stderr = text(2), text(2)
    return protocol


def ignore_signals() -> None:
    """Ctrl-C, and a SIGTERM to the whole group, are the launcher's: it lets KCL end its children in order."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def prepare() -> tuple[ShardConsumer, Clients]:
    """A shard's consumer, all that it needs loaded and warm, and its clients. Raises ConfigError."""
    from stream_app import app
    from stream_app.telemetry import log

    log.configure()
    settings = app.load_settings(os.environ)
    log.configure(settings.log_level)
    client = app.clients(os.environ, settings.region)
    consumer = app.consumer(settings, client)
    app.warm_up(settings, consumer.registry, client)
    return consumer, client


def serve(
    consumer: ShardConsumer,
    protocol: IO[bytes],
    *,
    warm: bool = False,
) -> None:
    """Answer KCL until it closes stdin. Raises what the consumer raises.

    `warm` tells that batches were processed in this process before. A batch that takes longer than the settings allow
    ends the process.
    """
    from stream_app.consumer.memory_release import MemoryReleasing
    from stream_app.consumer.protocol.batch_coalescer import BatchCoalescer
    from stream_app.consumer.protocol.multilang import serve as answer
    from stream_app.consumer.protocol.pipe import WidePipe
    from stream_app.consumer.quarantine.batch_timer import BatchTimer

    timer = BatchTimer(consumer.dependencies.settings.batch_limit, warm=warm)
    consumer.limit_batches(timer, warm=warm)
    with open(0, "rb", buffering=0, closefd=False) as stdin:
        gathering = BatchCoalescer(consumer, max_record_bytes=consumer.dependencies.settings.max_record_bytes)
        answer(MemoryReleasing(gathering), WidePipe(stdin), protocol)


def ended(work: Callable[[], object]) -> int:
    """Do the work, and say how it ended: one line of log where it failed, and the exit code."""
    from stream_app.errors import CONFIG_ERROR, ConfigError, StreamAppError
    from stream_app.telemetry import log

    try:
        work()
    except ConfigError as error:
        for problem in error.problems:
            # By the exit code in its log the launcher tells it from a user's code that exits with 2.
            log.get().error(problem.what, hint=problem.hint, exit_code=CONFIG_ERROR)
        return CONFIG_ERROR
    except StreamAppError as error:
        log.get().error(str(error), kind=type(error).__name__)
        return 1
    except Exception:
        log.get().exception("the consumer ends without a checkpoint")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
