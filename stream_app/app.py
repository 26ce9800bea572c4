"""The composition root: the only module that creates boto3 clients and connects the parts."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
import botocore.session
from botocore.config import Config
from botocore.httpsession import URLLib3Session

from stream_app import __version__
from stream_app.aws.clients import ClientFactory
from stream_app.aws.retry import Attempt, Policy, call, retrying
from stream_app.consumer import forgetting
from stream_app.consumer.alerting.alerts import Alerts, NoAlerts, details
from stream_app.consumer.alerting.outbox import Outbox
from stream_app.consumer.alerting.store import S3Alerts
from stream_app.consumer.dependencies import ShardDependencies
from stream_app.consumer.quarantine.policy import Isolation
from stream_app.consumer.shard import ShardConsumer
from stream_app.consumer.signed_snapshots import SignedSnapshots, read_keys
from stream_app.consumer.snapshots import S3Snapshots, lineage_of
from stream_app.errors import ConfigError, Problem, aws_error_code
from stream_app.event_loading import load_registry
from stream_app.model.record import Batch, Record
from stream_app.model.segment import PrebuildingSink, Segment, Sink
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.user_code.declaration_checks import without_deduplication
from stream_app.recovery import dead_letters
from stream_app.recovery.stream.read import timestamp
from stream_app.settings import ENVIRONMENT, Settings, read_properties
from stream_app.sinks.loading import load_sinks
from stream_app.sinks.quarantine import S3QuarantineStore
from stream_app.telemetry import log
from stream_app.telemetry.summary import Summary
from stream_app.warm import warm_up

if TYPE_CHECKING:
    from botocore.client import BaseClient

T = TypeVar("T")

# A shard does not wait for its alerts: seconds to connect to EventBridge and to receive its response.
_BUS_TIMEOUTS = Config(connect_timeout=2, read_timeout=5)


def _config(attempts: int) -> Config:
    """Retries are left to `aws.retry`, which logs them; botocore repeats once for a connection that was closed."""
    return Config(
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=5,
        read_timeout=60,
        max_pool_connections=32,
        tcp_keepalive=True,
        # botocore builds its own user agent for each request, which costs a tenth of a small request.
        user_agent=f"stream-app/{__version__} Boto3/{boto3.__version__} Botocore/{botocore.__version__}",
    )


__all__ = ["Clients", "check", "clients", "consumer", "dependencies", "load_settings", "warm_up"]
_REQUIRED = ("bucket", "dead_letter_queue")
_lock = threading.Lock()


class Clients:
    """Creates a boto3 client for each service at its first use (protocol `ClientFactory`)."""

    def __init__(self, session: boto3.session.Session, endpoint: str | None, config: Config) -> None:
        self._session, self._endpoint, self._config = session, endpoint, config
        self._clients: dict[str, BaseClient] = {}

    # Any: the overloads of `ClientFactory` give the type of each service's client.
    def __call__(self, service: str, /) -> Any:
        """Return the client of a service."""
        with _lock:
            if service not in self._clients:
                config = self._config.merge(_BUS_TIMEOUTS) if service == "events" else self._config
                create: Callable[..., BaseClient] = self._session.client
                self._clients[service] = create(service, endpoint_url=self._endpoint, config=config)
            return self._clients[service]

    def disconnect(self) -> None:
        """Close all connections, so that a fork shares none with its parent. The next request opens a new one.

        These are the connections of the clients, and those to the metadata services of containers and instances,
        which provide credentials. Clients of STS and SSO, which botocore creates to refresh credentials, are not used
        for another request.
        """
        with _lock:
            for client in self._clients.values():
                client.close()
            for session in _credential_sessions(self._session):
                session.close()


def _credential_sessions(session: boto3.session.Session) -> Iterator[URLLib3Session]:
    """The HTTP sessions that botocore's credential providers keep; none of them has a public name."""
    core: Any = session._session
    for provider in core.get_component("credential_provider").providers:
        fetcher = getattr(provider, "_role_fetcher", None) or getattr(provider, "_fetcher", None)
        kept = getattr(fetcher, "_session", None)
        if isinstance(kept, URLLib3Session):
            yield kept


def clients(environ: Mapping[str, str], region: str | None = None, attempts: int = 2) -> Clients:
    """Return a factory of boto3 clients with the endpoint, region and credentials of `environ`.

    Without credentials in `environ`, boto3 uses its usual providers: profile, container, instance. `attempts` is the
    number of attempts of each request; callers without a retry policy of their own pass more.
    """
    core = botocore.session.get_session()
    parsers = core.get_component("response_parser_factory")
    parsers.set_parser_defaults(timestamp_parser=timestamp)
    session = boto3.session.Session(
        botocore_session=core,
        aws_access_key_id=environ.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=environ.get("AWS_SECRET_ACCESS_KEY"),
        aws_session_token=environ.get("AWS_SESSION_TOKEN"),
        region_name=region or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION"),
    )
    return Clients(session, environ.get("AWS_ENDPOINT_URL"), _config(attempts))


def load_settings(environ: Mapping[str, str], path: Path | None = None) -> Settings:
    """Load the settings from `path`, or from the file that the environment names. Raises ConfigError."""
    named = path or (Path(environ[ENVIRONMENT]) if environ.get(ENVIRONMENT) else None)
    if named is None:
        hint = f"give --properties FILE or set {ENVIRONMENT}"
        raise ConfigError([Problem("no properties file is named", hint)])
    return Settings.load(environ, read_properties(named))


def check(settings: Settings, client: ClientFactory) -> None:
    """Raise ConfigError with every problem that prevents a consumer with these settings from working."""
    problems: list[Problem] = []
    try:
        consumer(settings, client)
    except ConfigError as error:
        problems += error.problems
    try:
        client("kinesis").describe_stream_summary(StreamName=settings.stream)
    except Exception as error:
        if aws_error_code(error) != "ResourceNotFoundException":
            raise
        hint = "check streamName, regionName and the account"
        problems.append(Problem(f"there is no stream {settings.stream} in {settings.region}", hint))
    if problems:
        raise ConfigError(problems)


def consumer(settings: Settings, client: ClientFactory) -> ShardConsumer:
    """Return the consumer of one shard, connected to AWS. Raises ConfigError for invalid settings."""
    problems = [
        Problem(f"app.{name} is not set", f"add app.{name} to the file")
        for name in _REQUIRED
        if not getattr(settings, name)
    ]
    problems += settings.batch_problems()
    if problems:
        raise ConfigError(problems)
    registry = load_registry()
    problems = forgetting.problems(settings, [codec.event for codec in registry.codecs.values()])
    if problems:
        raise ConfigError(problems)
    for codec in registry.codecs.values():
        if (problem := without_deduplication(codec.event, codec.schema)) is not None:
            log.get().warning(problem.what, hint=problem.hint, event_type=codec.event.name)
    return ShardConsumer(dependencies(settings, registry, client))


def dependencies(settings: Settings, registry: Registry, client: ClientFactory) -> ShardDependencies:
    """Return the external dependencies of a shard's consumer. Raises ConfigError for sinks that cannot be created."""
    policy = Policy(settings.retry_attempts, settings.retry_base_ms, settings.retry_cap_ms)
    rng = random.SystemRandom()  # without state, so that forks of one process do not draw the same pauses
    logger = log.get()

    def attempt(what: str, action: Callable[[], T], /) -> T:
        return call(action, policy, sleep=time.sleep, rng=rng, what=what)

    def park(segment: Segment) -> None:
        bodies = dead_letters.messages(segment)
        dead_letters.send(
            client("sqs"), settings.dead_letter_queue, bodies, policy, sleep=time.sleep, rng=rng
        )

    def note(event: str, *, level: str = "info", **fields: object) -> None:
        getattr(logger, level)(event, **fields)  # looked up at each call, as is stderr

    def report(summary: Summary) -> None:
        logger.info(**summary.to_json())

    sinks = load_sinks(settings, registry, client)
    return ShardDependencies(
        registry=registry,
        settings=settings,
        sinks=[retrying(sink, policy, sleep=time.sleep, rng=rng) for sink in sinks],
        park=park,
        alerts=_alerts(settings, registry, client, attempt),
        snapshots=_snapshots(settings, client),
        lineage=lineage_of(client("kinesis"), settings.stream),
        attempt=attempt,
        report=report,
        note=note,
        now_ms=lambda: time.time_ns() // 1_000_000,
        isolation=Isolation(
            S3QuarantineStore(client("s3"), settings.bucket, settings.application), _builder(sinks)
        ),
    )


def _builder(sinks: Sequence[Sink]) -> Callable[[Segment], None]:
    """Return a function that does what the sinks and the dead letters do with a segment before their requests."""
    building = [sink for sink in sinks if isinstance(sink, PrebuildingSink)]

    def build(segment: Segment) -> None:
        for sink in building:
            sink.build(segment)
        dead_letters.messages(segment)

    return build


def _snapshots(settings: Settings, client: ClientFactory) -> SignedSnapshots:
    keys = read_keys(settings.state_key, settings.state_key_file)
    stored = S3Snapshots(client("s3"), settings.bucket, settings.application)
    accept = settings.unsigned_state == "accept"
    return SignedSnapshots(stored, keys, settings.application, accept_unsigned=accept)


class OutboxAlerts:
    """Sends the alerts of all event types through one outbox (protocol `Alerts`)."""

    def __init__(self, settings: Settings, registry: Registry, outbox: Outbox) -> None:
        self._consumer, self._registry, self._outbox = settings.application, registry, outbox
        self.start, self.flush, self.secure = outbox.start, outbox.flush, outbox.secure

    @property
    def waiting(self) -> int:
        return self._outbox.waiting

    @property
    def dropped(self) -> int:
        return self._outbox.dropped

    def add(self, shard: str, records: Sequence[Record], batch: Batch) -> None:
        event = self._registry.codecs[batch.event].event
        name = getattr(event.detector, "__name__", "detector")
        try:
            self._outbox.add(details(self._consumer, shard, records, batch, event, name))
        except Exception as error:
            self._outbox.lost(len(batch), repr(error))


def _alerts(settings: Settings, registry: Registry, client: ClientFactory, attempt: Attempt) -> Alerts:
    if not settings.bus:
        return NoAlerts()
    store = S3Alerts(client("s3"), settings.bucket, settings.application)
    outbox = Outbox(client("events"), settings.bus, store, warn=log.get().warning, attempt=attempt)
    return OutboxAlerts(settings, registry, outbox)
