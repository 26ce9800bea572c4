"""Settings: one `.properties` file configures the KCL daemon and the application (`app.*`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import javaproperties

from stream_app.errors import ConfigError, Problem

ENVIRONMENT = "STREAM_APP_PROPERTIES"
INSPECTED_ROWS = 1_024
"""The maximum of records that quarantine inspects at once (`consumer.quarantine`)."""
_STEPS = 2 + math.log2(INSPECTED_ROWS)  # the maximum of steps, each with a time limit, to find one of them


@dataclass(frozen=True, slots=True)
class Settings:
    """The application's settings; a field `x` is the property `app.x`, overridden by STREAM_APP_X."""

    application: str
    stream: str
    region: str = "us-east-1"
    bucket: str = ""
    dead_letter_queue: str = ""
    bus: str = ""
    latest_table: str = ""
    sinks: str = ""
    segment_seconds: int = 60
    segment_records: int = 50_000
    segment_bytes: int = 64 << 20
    checkpoint_seconds: int = 60
    clock_margin_ms: int = 1_000
    max_record_bytes: int = 262_144
    seen_ids: int = 256
    retry_attempts: int = 8
    retry_base_ms: int = 100
    retry_cap_ms: int = 10_000
    stop_after_failures: int = 0
    missing_state: str = "fail"
    unsigned_state: str = "fail"
    state_key_file: str = ""
    state_key: str = field(default="", repr=False)
    forget_devices_after_days: int = 30
    log_level: str = "INFO"
    shard_host: str = "true"
    java_heap: str = ""
    record_bytes: int = 0
    batch_seconds: int = 0
    timeout_seconds: int = 0

    @property
    def batch_limit(self) -> float:
        """The time limit of a batch in seconds, by default derived from timeoutInSeconds; 0 for no limit."""
        return float(self.batch_seconds) or self.timeout_seconds / (2 * _STEPS + 1)

    def batch_problems(self) -> list[Problem]:
        """Return the problems of the time limit of a batch.

        Finding a record that does not terminate must take less than half of the time that KCL waits for a response.
        """
        batch, timeout = self.batch_seconds, self.timeout_seconds
        if not timeout or 2 * batch * _STEPS < timeout:
            return []
        most, least = math.ceil(timeout / (2 * _STEPS)) - 1, math.floor(2 * batch * _STEPS) + 1
        lower = f"give at most {most}" if most else "leave it out"
        what = f"app.batch_seconds = {batch} is too long for timeoutInSeconds = {timeout}"
        return [Problem(what, f"{lower}, or set timeoutInSeconds to at least {least}")]

    @classmethod
    def load(cls, environ: Mapping[str, str], properties: Mapping[str, str]) -> Settings:
        """Create settings from properties and the environment. Raises ConfigError with every problem."""
        problems: list[Problem] = []
        values: dict[str, Any] = {}  # int or str, by the field
        for item in fields(cls):
            raw = _raw(item.name, environ, properties)
            if raw is None:
                if item.name in ("application", "stream"):
                    problems.append(
                        Problem(f"{_SOURCE[item.name]} is not set", "add it to the properties file")
                    )
                continue
            try:
                values[item.name] = int(raw) if item.type == "int" else raw
            except ValueError:
                problems.append(
                    Problem(f"app.{item.name} = {raw!r} is not a whole number", "give digits only")
                )
        problems += _unknown(properties)
        problems += _out_of_range(values)
        if problems:
            raise ConfigError(problems)
        return cls(**values)


# Secrets are read from the environment only, because KCL logs every property.
_SECRET = frozenset({"state_key"})
_SOURCE = {
    "application": "applicationName",
    "stream": "streamName",
    "region": "regionName",
    "timeout_seconds": "timeoutInSeconds",
}
# The minimum of each number.
_LEAST = {
    "segment_seconds": 1,
    "segment_records": 1,
    "segment_bytes": 1,
    "checkpoint_seconds": 1,
    "clock_margin_ms": 0,
    "max_record_bytes": 1,
    "seen_ids": 1,
    "retry_attempts": 1,
    "retry_base_ms": 0,
    "retry_cap_ms": 0,
    "batch_seconds": 0,
    "timeout_seconds": 0,
    "record_bytes": 0,
    "forget_devices_after_days": 0,
    "stop_after_failures": 0,
}
_CHOICES = {
    "missing_state": ("fail", "fresh"),
    "unsigned_state": ("fail", "accept"),
    "log_level": ("DEBUG", "INFO", "WARNING", "ERROR"),
    "shard_host": ("true", "false"),
}


def _raw(name: str, environ: Mapping[str, str], properties: Mapping[str, str]) -> str | None:
    if name in _SECRET:
        return environ.get(f"STREAM_APP_{name.upper()}")
    return (
        environ.get(f"STREAM_APP_{name.upper()}")
        or properties.get(f"app.{name}")
        or (properties.get(_SOURCE[name]) if name in _SOURCE else None)
    )


def _unknown(properties: Mapping[str, str]) -> list[Problem]:
    known = {f"app.{item.name}" for item in fields(Settings) if item.name not in _SECRET}
    secret = [f"app.{name}" for name in _SECRET if f"app.{name}" in properties]
    unknown = [name for name in properties if name.startswith("app.") and name not in (*known, *secret)]
    hint = "KCL logs every property; set STREAM_APP_STATE_KEY, or name a file in app.state_key_file"
    return [
        *(Problem(f"{name} is set as a property", hint) for name in secret),
        *(Problem(f"unknown property {name}", f"known are {', '.join(sorted(known))}") for name in unknown),
    ]


def _out_of_range(values: Mapping[str, Any]) -> list[Problem]:
    problems = [
        Problem(f"app.{name} = {values[name]} is below {least}", f"give a whole number of at least {least}")
        for name, least in _LEAST.items()
        if values.get(name, least) < least
    ]
    for name, choices in _CHOICES.items():
        if values.get(name, choices[0]) not in choices:
            problems.append(Problem(f"app.{name} = {values[name]!r}", f"give one of {', '.join(choices)}"))
    return problems


def read_properties(path: Path) -> dict[str, str]:
    """Read a Java properties file (see `parse_properties`). Raises ConfigError if it cannot be read."""
    try:
        return parse_properties(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            [Problem(f"cannot read {path}: {error}", "name a readable .properties file")]
        ) from error
    except javaproperties.InvalidUEscapeError as error:
        hint = "write a backslash as two, or give four hexadecimal digits after \\u"
        raise ConfigError([Problem(f"{path}: {error}", hint)]) from error


def parse_properties(text: str) -> dict[str, str]:
    r"""Parse properties as the daemon does (java.util.Properties); the last value of a name is used.

    White space at the end of a value is removed, and a line without a name is ignored. Raises
    javaproperties.InvalidUEscapeError for a `\u` that is not followed by four hexadecimal digits.
    """
    return {name: value.rstrip() for name, value in javaproperties.loads(text).items() if name}
