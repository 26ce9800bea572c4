"""The contract of a user's sink: how the consumer of a shard creates it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from stream_app.aws.clients import ClientFactory
    from stream_app.model.segment import Sink
    from stream_app.settings import Settings


class SinkFactory(Protocol):
    """Creates a sink: `SINK = MySink` in `sinks/my_sink.py`, or an entry point of the group `stream_app.sinks`.

    It is called once in each process, before the shard is known, and must make no request and start no thread: the
    process may be forked afterwards. `client` returns boto3 clients by service name. Raises ConfigError where the
    settings do not suffice.
    """

    def __call__(self, settings: Settings, client: ClientFactory, /) -> Sink:
        """Return a sink for the consumer of one shard."""
        ...
