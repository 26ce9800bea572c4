"""Creates the sinks that `app.sinks` names: the shipped ones and those of users."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stream_app.aws.clients import ClientFactory
from stream_app.errors import ConfigError, Problem
from stream_app.extensions import Extension, installed, local
from stream_app.model.segment import Sink
from stream_app.pipeline.registry import Registry
from stream_app.settings import Settings
from stream_app.sinks.columns import column_types
from stream_app.sinks.dynamodb import LatestSink
from stream_app.sinks.s3 import ManifestSink, ParquetSink

SINKS_GROUP = "stream_app.sinks"
"""The entry-point group of sinks; each entry point has the sink's name and refers to its `SinkFactory` or module."""
S3, DYNAMODB = "s3", "dynamodb"
_SHIPPED = (S3, DYNAMODB)
# A `SinkFactory` whose result is checked.
_Factory = Callable[[Settings, ClientFactory], object]


def load_sinks(settings: Settings, registry: Registry, client: ClientFactory) -> list[Sink]:
    """Create the sinks in the order in which they write. Raises ConfigError with every problem.

    The Parquet sink, which counts as storage, comes after all other sinks, and the manifest, which lists what was
    stored, last. Without `app.sinks` these are S3 and, with `app.latest_table`, DynamoDB. Users' modules are imported
    only if `app.sinks` names a sink that is not shipped.
    """
    names = sink_names(settings)
    problems = _name_problems(names, settings)
    users = [name for name in names if name not in _SHIPPED]
    factories = _user_factories(users, problems) if users else {}
    sinks: list[Sink] = []
    for name in names:
        if name == DYNAMODB and not problems:
            events = {name: codec.event for name, codec in registry.codecs.items()}
            sinks.append(LatestSink(client("dynamodb"), settings.latest_table, events))
        elif name in factories:
            sinks += _created(name, factories[name], settings, client, problems)
    if problems:
        raise ConfigError(problems)
    return [*sinks, *_s3_sinks(settings, registry, client)]


def sink_names(settings: Settings) -> list[str]:
    """The names in `app.sinks`, or its default."""
    named = [name.strip() for name in settings.sinks.split(",")]
    return [name for name in named if name] or [S3, *([DYNAMODB] if settings.latest_table else [])]


def _name_problems(names: Sequence[str], settings: Settings) -> list[Problem]:
    problems = [
        Problem(f"app.sinks names {name!r} more than once", "name each sink once")
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    if S3 not in names:
        hint = f"add {S3}: checkpoints, audits and corrections rely on the files and manifests on S3"
        problems.append(Problem(f"app.sinks does not name {S3!r}", hint))
    if DYNAMODB in names and not settings.latest_table:
        hint = "add app.latest_table, or remove the sink"
        problems.append(Problem(f"app.sinks names {DYNAMODB!r}, but app.latest_table is not set", hint))
    return problems


def _s3_sinks(settings: Settings, registry: Registry, client: ClientFactory) -> list[Sink]:
    codecs = registry.codecs
    fingerprints = {name: codec.schema.fingerprint for name, codec in codecs.items()}
    types = {name: column_types(codec.schema.fields) for name, codec in codecs.items()}
    s3, bucket = client("s3"), settings.bucket
    return [ParquetSink(s3, bucket, fingerprints, types), ManifestSink(s3, bucket)]


def _user_factories(names: Sequence[str], problems: list[Problem]) -> dict[str, _Factory]:
    """The factories of the sinks named; unknown, invalid and duplicate ones are appended to `problems`."""
    found: dict[str, Extension] = {}
    for extension in (*local("sinks", problems), *installed(SINKS_GROUP, problems)):
        first = found.setdefault(extension.name, extension)
        other = "stream_app" if extension.name in _SHIPPED else first.source
        if other != extension.source:
            what = f"sink {extension.name!r} is declared twice: {other} and {extension.source}"
            problems.append(Problem(what, "rename one of them"))
    factories: dict[str, _Factory] = {}
    for name in names:
        if name not in found:
            known = ", ".join(sorted({*_SHIPPED, *found}))
            problems.append(Problem(f"app.sinks names the unknown sink {name!r}", f"known are {known}"))
            continue
        factory = getattr(found[name].value, "SINK", found[name].value)
        if callable(factory):
            factories[name] = factory
        else:
            hint = "add SINK = …, a function of the settings and a client factory that returns the sink"
            problems.append(Problem(f"{found[name].source} declares no SINK", hint))
    return factories


def _created(
    name: str, factory: _Factory, settings: Settings, client: ClientFactory, problems: list[Problem]
) -> list[Sink]:
    try:
        sink = factory(settings, client)
    except ConfigError as error:
        problems += error.problems
        return []
    except Exception as error:
        what = f"sink {name!r} cannot be created: {type(error).__name__}: {error}"
        problems.append(Problem(what, "see the contract of stream_app.api.SinkFactory"))
        return []
    if isinstance(sink, Sink):
        return [sink]
    what = f"sink {name!r} is an object of type {type(sink).__name__}, without write or close"
    problems.append(Problem(what, "see the contract of stream_app.api.Sink"))
    return []
