"""The properties file that one daemon run is given: the base file with what differs from run to run."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from stream_app.errors import ConfigError, Problem

_REQUIRED = {
    "applicationName": "it names the lease table",
    "streamName": "name the stream to read",
    "executableName": "stream-app-consumer",
    "AwsCredentialsProvider": "DefaultCredentialsProvider",
    "timeoutInSeconds": "unset, KCL waits for a stuck child for ever",
    "shutdownGraceMillis": "unset, a stop leaves no time for the final checkpoint; 20000 is good",
}
_NUMBERS = ("timeoutInSeconds", "shutdownGraceMillis")
FROM_ENVIRONMENT = {
    "STREAM_APP_APPLICATION": "applicationName",
    "STREAM_APP_STREAM": "streamName",
    "STREAM_APP_REGION": "regionName",
    "STREAM_APP_WORKER_ID": "workerId",
}
_SECRET = re.compile(r"secret|password|token|access_?key|state_?key$", re.IGNORECASE)
_GIVES_KEYS = re.compile(r"(Static|Basic|AwsBasic)\w*CredentialsProvider\b.*\|")


def effective(base: Mapping[str, str], overrides: Mapping[str, str | None]) -> dict[str, str]:
    """The base with its overrides; None takes a property away."""
    merged: dict[str, str | None] = {**base, **overrides}
    return {name: value for name, value in merged.items() if value is not None}


def from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What the environment says of the daemon's own properties; the application's settings read the same names."""
    return {name: value for key, name in FROM_ENVIRONMENT.items() if (value := environ.get(key))}


def render(base: Mapping[str, str], overrides: Mapping[str, str | None]) -> str:
    """The text of the effective properties file, sorted by name.

    Raises ConfigError where a value cannot stand in a properties file as it is: Java reads the file as Latin-1
    and takes backslashes for escapes, Python does neither.
    """
    properties = effective(base, overrides)
    odd = [name for name, value in properties.items() if not _plain(name) or not _plain(value)]
    if odd:
        raise ConfigError(
            [Problem(f"property {name} is not plain", "use printable ASCII without \\") for name in odd]
        )
    return "".join(f"{name} = {properties[name]}\n" for name in sorted(properties))


def problems(properties: Mapping[str, str], path: str) -> list[Problem]:
    """All that is wrong with what the daemon would be given; it looks for its children's program on `path`."""
    found = [
        Problem(f"{name} is not set", hint) for name, hint in _REQUIRED.items() if not properties.get(name)
    ]
    for name in _NUMBERS:
        value = properties.get(name, "1")
        if not value.isdecimal() or int(value) < 1:
            found.append(
                Problem(f"{name} = {value!r} is no positive number", "give digits; KCL takes 0 for unset")
            )
    if properties.get("callProcessRecordsEvenForEmptyRecordList", "").lower() != "true":
        what = "callProcessRecordsEvenForEmptyRecordList is not true"
        found.append(Problem(what, "segments of a quiet shard are closed on empty ticks"))
    executable = properties.get("executableName", "").split()
    if executable and shutil.which(executable[0], path=path) is None:
        found.append(
            Problem(f"no program {executable[0]} on the PATH", "pip install stream-app in this environment")
        )
    return found + _secrets(properties)


def _secrets(properties: Mapping[str, str]) -> list[Problem]:
    named = [name for name, value in properties.items() if _SECRET.search(name) or _GIVES_KEYS.search(value)]
    hint = "KCL logs every property; give credentials through the environment or a role"
    return [Problem(f"property {name} holds a secret", hint) for name in named]


def _plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and "\\" not in text


@contextmanager
def private_file(text: str, name: str = "effective.properties") -> Iterator[Path]:
    """A file of this user alone (mode 0600 in a folder of mode 0700) that is gone at the end."""
    with tempfile.TemporaryDirectory(prefix="stream-app-") as folder:
        path = Path(folder, name)
        with os.fdopen(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii"
        ) as file:
            file.write(text)
        yield path


def replace_text(path: Path, text: str) -> None:
    """Give a private file another text at once: whoever reads it gets the one or the other."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text)
    new.replace(path)
