"""The record processor that KCL starts for each shard; it reserves stdout for the protocol before it loads anything.

The fork server (`stream_app.forkserver.main`) calls `prepare` once, and `serve` in a fork for each shard.
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
    """Serve one shard on stdin and stdout.

    Exit code 0 at the end of input, 1 for an error, 2 for invalid configuration, and 78 if user code fails on every
    record and the settings require a stop in that case.
    """
    protocol = take_stdout()
    ignore_signals()
    return exit_code_of(lambda: serve(prepare()[0], protocol))


def take_stdout() -> IO[bytes]:
    """Return stdout for the protocol, and redirect later output to stdout, also of C extensions, to the log.

    Printing never raises, even if stderr is closed: the outcome of a row must not depend on it.
    """
    from stream_app.telemetry.best_effort import open_standard_files, text

    open_standard_files()
    protocol = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout, sys.stderr = text(2), text(2)
    return protocol


def ignore_signals() -> None:
    """Ignore Ctrl-C and SIGTERM to the process group: the launcher handles them and lets KCL stop its children."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def prepare() -> tuple[ShardConsumer, Clients]:
    """Load and warm up everything, and return the consumer of a shard and its clients. Raises ConfigError."""
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

    `warm` states that this process has processed batches before. A batch that takes longer than the configured limit
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


def exit_code_of(work: Callable[[], object]) -> int:
    """Call `work` and return the exit code; an error is logged as one line."""
    from stream_app.errors import CONFIG_ERROR, ConfigError, StreamAppError
    from stream_app.telemetry import log

    try:
        work()
    except ConfigError as error:
        for problem in error.problems:
            # The launcher recognizes invalid configuration by this field; user code may exit with 2 as well.
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
