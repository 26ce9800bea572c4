"""What can be set: one `.properties` file serves the KCL daemon and the application (`app.*`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from stream_app.errors import ConfigError, Problem

ENVIRONMENT = "STREAM_APP_PROPERTIES"


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
    segment_seconds: int = 60
    segment_records: int = 50_000
    checkpoint_seconds: int = 60
    clock_margin_ms: int = 1_000
    max_record_bytes: int = 262_144
    seen_ids: int = 256
    retry_attempts: int = 8
    retry_base_ms: int = 100
    retry_cap_ms: int = 10_000
    missing_state: str = "fail"
    log_level: str = "INFO"

    @classmethod
    def load(cls, environ: Mapping[str, str], properties: Mapping[str, str]) -> Settings:
        """Settings out of parsed properties and the environment. Raises ConfigError with every problem at once."""
        problems: list[Problem] = []
        values: dict[str, Any] = {}
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


_SOURCE = {"application": "applicationName", "stream": "streamName", "region": "regionName"}
_AT_LEAST_ONE = ("segment_seconds", "segment_records", "checkpoint_seconds", "max_record_bytes", "seen_ids")


def _raw(name: str, environ: Mapping[str, str], properties: Mapping[str, str]) -> str | None:
    return (
        environ.get(f"STREAM_APP_{name.upper()}")
        or properties.get(f"app.{name}")
        or properties.get(_SOURCE.get(name, ""))
    )


def _unknown(properties: Mapping[str, str]) -> list[Problem]:
    known = {f"app.{item.name}" for item in fields(Settings)}
    unknown = [name for name in properties if name.startswith("app.") and name not in known]
    return [Problem(f"unknown property {name}", f"known are {', '.join(sorted(known))}") for name in unknown]


def _out_of_range(values: Mapping[str, Any]) -> list[Problem]:
    problems = [
        Problem(f"app.{name} = {values[name]} is below 1", "give a whole number of at least 1")
        for name in _AT_LEAST_ONE
        if values.get(name, 1) < 1
    ]
    if values.get("missing_state", "fail") not in ("fail", "fresh"):
        problems.append(Problem(f"app.missing_state = {values['missing_state']!r}", "give fail or fresh"))
    return problems


def read_properties(path: Path) -> dict[str, str]:
    """A Java properties file: `name = value` or `name: value` lines, `#` and `!` comments, `\\` continuation.

    Raises ConfigError when it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            [Problem(f"cannot read {path}: {error}", "name a readable .properties file")]
        ) from error
    return parse_properties(text)


def parse_properties(text: str) -> dict[str, str]:
    """The pairs of a properties text; the last of a name wins."""
    found: dict[str, str] = {}
    for line in text.replace("\\\n", "").splitlines():
        bare = line.strip()
        if not bare or bare[0] in "#!":
            continue
        cut = min((at for at in (bare.find("="), bare.find(":")) if at > 0), default=len(bare))
        found[bare[:cut].strip()] = bare[cut + 1 :].strip()
    return found
